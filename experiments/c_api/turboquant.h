#ifndef TURBOQUANT_H
#define TURBOQUANT_H

#include <stddef.h>
#include <stdint.h>

/* TurboQuant Lab's codecs and KV cache for other languages. experiments/python/turboquant_lab is made of it.
 *
 * Errors: functions that can fail return 0 or the exit code that `tq` would give: 2 usage (an argument), 3
 * bad input (a file's content), 4 the machine (no memory, no GPU, a CUDA error); tq_last_error() says more.
 * What a failed call was to fill in is undefined, everything else is as it was. No exception leaves the
 * library.
 *
 * Ownership: a handle belongs to the caller until its destroy function; what was made of it lives on by
 * itself, so handles may be destroyed in any order. Arrays always belong to the caller and are used only
 * during the call, or, where there is a stream, until the stream has come past the call's work.
 *
 * Threads: a tq_codec and a tq_gpu may be used by any number of threads at once. Calls on one tq_cache
 * exclude each other where they must. Destroying a handle that is in use is the caller's fault.
 *
 * Streams: `void* stream` is a CUstream or cudaStream_t of the device's primary context, the context that
 * PyTorch, CuPy and the CUDA runtime use; null is the legacy default stream. Calls put work into it and
 * return. Device pointers to vectors are multiples of 16 bytes; all arrays are contiguous, the last dimension
 * fastest. */

#define TQ_API __attribute__((visibility("default")))

#ifdef __cplusplus
extern "C" {
#endif

/* Grows when a declaration below changes; compare with tq_abi_version(). */
#define TQ_ABI_VERSION 1
TQ_API int tq_abi_version(void);
/* "0.1.0" */
TQ_API const char* tq_version(void);

/* One line on the last call of this thread that failed; valid until the next one that fails. Empty before. */
TQ_API const char* tq_last_error(void);

/* ---- Codecs ---- */

typedef struct tq_codec tq_codec; /* of keys or of values; never changes */

enum { TQ_KEYS = 0, TQ_VALUES = 1 }; /* side */

#define TQ_ALPHA_UNBIASED (-1.0)      /* sqrt(pi/2): scores are right on average */
#define TQ_ALPHA_LEAST_SQUARES (-2.0) /* least squares for an isotropic residual: a smaller error, a bias */

/* As the options of `tq eval`. Texts may be null: the default, given last. */
typedef struct tq_codec_options {
  int head_dim;         /* d: a multiple of 8 from 16 to 1024 */
  const char* mode;     /* keys: "prod" or "mse"; values: "group" or "rotated" */
  int bits;             /* mse, rotated 1..8; prod 2..8, the sign bit included; group 2, 3, 4, 8 */
  const char* scale;    /* mse, rotated: "norm", "ls" or "nc" */
  const char* sketch;   /* prod: "gaussian" or "orthogonal" */
  const char* rotation; /* all but group: "qr" or "rht" */
  int group_size;       /* group: coordinates that share a scale */
  uint64_t seed;        /* of rotation and sketch: the same numbers as `tq --seed` */
  double alpha;         /* prod: 0..2 or one of the above */
} tq_codec_options;

/* 3 bits, mse or rotated, groups of 32, seed 0, unbiased alpha; head_dim 0, to be set. */
TQ_API void tq_codec_defaults(tq_codec_options* options);

/* A data-free codec, the same for every head. */
TQ_API int tq_codec_create(int side, const tq_codec_options* options, tq_codec** codec);
/* One side of one layer of a *.tq.h5 artefact, layers counted from 0. */
TQ_API int tq_codec_from_artefact(const char* path, int layer, int side, tq_codec** codec);
/* Null is allowed. */
TQ_API void tq_codec_destroy(tq_codec* codec);

typedef struct tq_codec_info {
  int side;
  int head_dim;
  int heads;           /* KV heads that have tables of their own; 1: one codec for any number of heads */
  int bytes_per_token; /* of one head: the sum of what follows, two bytes a scalar */
  int code_bytes;      /* of one vector, as all below; 0: the codec has no such array */
  int scales, zeros;
  int sign_bytes;
  int residual_norms;
  int table_bits; /* a Lloyd-Max index; 0: group values */
  char name[64];  /* "mse3-nc" */
} tq_codec_info;
TQ_API int tq_codec_describe(const tq_codec* codec, tq_codec_info* info);

/* One head's tables: 2^table_bits centroids, 2^table_bits + 1 boundaries, alpha (0 unless prod). Any may be
 * null. */
TQ_API int tq_codec_tables(const tq_codec* codec, int head, double* centroids, double* boundaries,
                           double* alpha);
/* d x d matrices as float32: y = rotation x / ||x|| is what the tables quantise; signs are those of
 * sketch (y - c). Either may be null; asking for one that the codec does not have is an error. */
TQ_API int tq_codec_matrices(const tq_codec* codec, float* rotation, float* sketch);

/* Encoded vectors, heads x rows of them: codes of b bits laid end to end in each row, least significant bit
 * first; scalars are binary16; a sign bit of 1 is +1. Arrays that a codec does not have are not looked at. */
typedef struct tq_rows {
  uint8_t* codes;           /* heads x rows x code_bytes */
  uint16_t* scales;         /* heads x rows x scales */
  uint16_t* zeros;          /* heads x rows x zeros */
  uint8_t* signs;           /* heads x rows x sign_bytes */
  uint16_t* residual_norms; /* heads x rows x residual_norms */
} tq_rows;

/* x, out: heads x rows x d. Where the codec has several heads, `heads` is their number. */
TQ_API int tq_encode(const tq_codec* codec, const float* x, size_t heads, size_t rows,
                     const tq_rows* encoded);
TQ_API int tq_decode(const tq_codec* codec, const tq_rows* encoded, size_t heads, size_t rows, float* out);

/* out[h][t] = <q_h, k^_t>, straight from the codes. q: q_heads x d, q_heads a multiple of `heads`; query head
 * h reads KV head h / (q_heads / heads). out: q_heads x rows. */
TQ_API int tq_scores(const tq_codec* keys, const tq_rows* encoded, size_t heads, size_t rows, const float* q,
                     size_t q_heads, float* out);

/* out[h] = sum over t of p_ht v^_t, p_h the softmax over all rows of softmax_scale <q_h, k^_t>. q, out:
 * q_heads x d. lse: q_heads, or null: the natural logarithm of the sum of exp(scaled scores). No rows: out 0,
 * lse -infinity. */
TQ_API int tq_attend(const tq_codec* keys, const tq_rows* encoded_keys, const tq_codec* values,
                     const tq_rows* encoded_values, size_t heads, size_t rows, const float* q, size_t q_heads,
                     float softmax_scale, float* out, float* lse);

/* ---- GPU ---- */

typedef struct tq_gpu tq_gpu; /* a device and the kernels compiled for it */

typedef enum tq_element { TQ_FLOAT32 = 0, TQ_FLOAT16 = 1, TQ_BFLOAT16 = 2 } tq_element;

/* 1 when there are a driver, a device and NVRTC; else 0, and one line why goes to `reason` (cut to `size`
 * bytes; may be null). */
TQ_API int tq_gpu_available(char* reason, size_t size);

/* cache_folder: of compiled kernels and of what `tq tune` found; null: the one of `tq`, "": none. Kernels are
 * compiled when they are first used: about a second each, once a machine. */
TQ_API int tq_gpu_open(int ordinal, const char* cache_folder, tq_gpu** gpu);
TQ_API void tq_gpu_destroy(tq_gpu* gpu);

/* tq_encode() and tq_decode() of arrays in device memory. Codes equal the host's except where a coordinate
 * lies within rounding of a boundary. head_dim 64, 80, 96, 128, 192, 256; tables of at most 4 bits; groups of
 * 16, 32, 64, 128. The first call for a codec copies its tables to the device and keeps them until the codec
 * is destroyed. */
TQ_API int tq_encode_device(const tq_codec* codec, tq_gpu* gpu, const void* x, tq_element element,
                            size_t heads, size_t rows, const tq_rows* encoded, void* stream);
TQ_API int tq_decode_device(const tq_codec* codec, tq_gpu* gpu, const tq_rows* encoded, size_t heads,
                            size_t rows, void* out, tq_element element, void* stream);

/* ---- KV cache ---- */

/* Per layer and sequence: the first tokens and the newest ones as binary16, all others quantised once. */
typedef struct tq_cache tq_cache;

typedef struct tq_cache_layer {
  int head_dim;
  int kv_heads;
  const tq_codec* keys; /* both null: the layer's tokens all stay binary16 */
  const tq_codec* values;
} tq_cache_layer;

typedef struct tq_cache_policy {
  int recent;      /* newest tokens kept as binary16; usual: 128 */
  int sinks;       /* first tokens kept for ever; usual: 0 */
  int flush_block; /* tokens quantised at a time; usual: 1 */
} tq_cache_policy;

/* gpu null: a cache on the host; pointers are then to host memory, vectors float32, streams not looked at.
 * Else all work goes into `stream`, which must live as long as the cache; calls that name another stream are
 * ordered with it by events, both ways. */
TQ_API int tq_cache_create(const tq_cache_layer* layers, size_t count, const tq_cache_policy* policy,
                           int batch, tq_gpu* gpu, void* stream, tq_cache** cache);
/* All layers of an artefact. policy null: the one that tq_artefact_policy() gives. */
TQ_API int tq_cache_from_artefact(const char* path, const tq_cache_policy* policy, int batch, tq_gpu* gpu,
                                  void* stream, tq_cache** cache);
/* Which tokens the artefact was made to keep; the usual policy where it does not say. */
TQ_API int tq_artefact_policy(const char* path, tq_cache_policy* policy);
TQ_API void tq_cache_destroy(tq_cache* cache);

/* Any may be null. */
TQ_API int tq_cache_describe(const tq_cache* cache, int* layers, int* batch, tq_cache_policy* policy);
TQ_API int tq_cache_layer_shape(const tq_cache* cache, int layer, int* head_dim, int* kv_heads);
TQ_API int tq_cache_tokens(const tq_cache* cache, int layer, int sequence, size_t* tokens);

/* k, v: tokens x kv_heads x d, oldest first. prefill is append to an empty sequence. */
TQ_API int tq_cache_prefill(tq_cache* cache, int layer, int sequence, const void* k, const void* v,
                            tq_element element, size_t tokens, void* stream);
TQ_API int tq_cache_append(tq_cache* cache, int layer, int sequence, const void* k, const void* v,
                           tq_element element, size_t tokens, void* stream);
/* As many tokens to every sequence: batch x tokens x kv_heads x d. */
TQ_API int tq_cache_append_batch(tq_cache* cache, int layer, const void* k, const void* v, tq_element element,
                                 size_t tokens, void* stream);

/* Attention of every sequence over its own tokens, exact and quantised. q, out: batch x q_heads x d; lse:
 * batch x q_heads, float32, or null. On a GPU at most 16 query heads a KV head. */
TQ_API int tq_cache_attend(tq_cache* cache, int layer, const void* q, tq_element q_element, int q_heads,
                           float softmax_scale, void* out, tq_element out_element, float* lse, void* stream);

/* out[h][t] = <q_h, k^_t> for the quantised tokens of one sequence, the oldest first: q_heads x quantised. q:
 * q_heads x d. The number of quantised tokens is tq_cache_quantised()'s; an exact layer has none. */
TQ_API int tq_cache_quantised(const tq_cache* cache, int layer, int sequence, size_t* tokens);
TQ_API int tq_cache_scores(tq_cache* cache, int layer, int sequence, const void* q, tq_element element,
                           int q_heads, float* out, void* stream);

/* Bytes of all layers and sequences. */
typedef struct tq_cache_bytes {
  size_t codes;     /* quantised tokens: indices, sign bits */
  size_t scalars;   /* quantised tokens: scales, zero points, norms */
  size_t exact;     /* binary16 tokens */
  size_t allocated; /* memory held for them */
} tq_cache_bytes;
TQ_API int tq_cache_bytes_used(const tq_cache* cache, tq_cache_bytes* bytes);

#ifdef __cplusplus
}
#endif

#endif
