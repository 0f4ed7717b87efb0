#pragma once

#include "shared/tile_layout.h"

// The one argument of every kernel. Strides are in elements of what they step over unless they say bytes.
namespace tq::gpu {

struct WhtParams {
  const void* in;
  void* out;  // may be `in`
  i64 rows;
  float gain;  // multiplies H x: 1/sqrt(d) makes it orthogonal
};

// One object applied to vectors: an RHT (signs, permutation) or a dense matrix.
struct MixingParams {
  const float* signs;      // hadamard: d entries, +-1
  const u16* permutation;  // hadamard: output i is coordinate permutation[i] of H D x
  const float* matrix;     // dense: row k, column j holds what input k adds to output j
};

// Cell search of a table of 2^b centroids, in grid coordinates g = y scale + offset, clamped to 0 .. 1. Cell
// k of the grid is what rounds to k / 64: it says how many boundaries lie in cells below (`base`); what lies
// inside is compared. `steps` is the most boundaries that a cell holds, nearly always 1.
inline constexpr int kGridSteps = 64, kGridCells = kGridSteps + 1;
struct QuantiserTable {
  float grid_scale, grid_offset;
  int steps;
  float boundaries[16];  // grid coordinates of the inner ones, then 2, which no coordinate reaches
  float centroids[16];
  u8 base[kGridCells];
};

// Tokens of one sequence that a launch works on.
struct TokenRange {
  int first;  // where they go (or lie) in the cache
  int count;
  int source;  // slot of the first one in x
  int ring;    // slots of x after which they begin again at ring_begin; 0: no ring
  int ring_begin;
};

struct TileView {
  u8* base;
  i64 page_bytes;  // from one tile of 64 tokens to the next
  i64 head_bytes;
  i64 sequence_bytes;      // without a block table
  const int* block_table;  // [sequence][table_stride]: page of each tile; null: tiles of a sequence follow
                           // each other
  int table_stride;
};

struct CanonicalKeys {  // core/key_codec.h, one head after the other: [sequence][head][row]
  u8* codes;
  u16* scales;
  u8* signs;
  u16* residual_norms;
};

struct CanonicalGroups {  // core/value_codec.h
  u8* codes;
  u16* zeros;
  u16* scales;
};

struct VectorView {
  void* data;
  i64 sequence_stride, head_stride, token_stride;
};

struct RotateParams {
  const void* in;
  float* rotated;   // rows x d, core's order
  float* sketched;  // null, or rows x d
  i64 rows;
  MixingParams rotation, sketch;
};

struct EncodeParams {
  VectorView x;
  const TokenRange* ranges;  // one a sequence; null: `range` for all
  TokenRange range;
  const QuantiserTable* tables;  // one, or one a head
  int table_stride;              // 0 or 1
  const float* alpha;            // decoding prod keys: [head or 1], alpha / d
  int heads;
  int round_to_half;  // 1: what is encoded is x rounded to binary16, as a cache holds it
  MixingParams rotation;
  MixingParams sketch;
  TileView tiles;
  CanonicalKeys canonical;
  i64 canonical_rows;  // rows of one head
};

struct GroupParams {
  VectorView x;
  const TokenRange* ranges;
  TokenRange range;
  int heads;
  int round_to_half;
  TileView tiles;
  CanonicalGroups canonical;
  i64 canonical_rows;
};

// What a decode step needs of a layer's keys.
struct KeyTableParams {
  const float* centroids;  // [head or 1][2^b]
  int stride;              // 0 or 2^b
  const float* alpha;      // [head or 1]: alpha / d
  int alpha_stride;
  MixingParams rotation, sketch;
};

// Where the tokens of a sequence lie.
struct SequenceState {
  int quantised;     // tokens in tiles
  int sinks;         // slots [0, sinks) of the exact store
  int window;        // tokens in the ring
  int window_begin;  // their first slot, counted from `ring_begin`
};

struct ExactView {
  const u16* k;
  const u16* v;
  i64 sequence_stride, head_stride, token_stride;
  int ring_begin, ring;  // the window wraps after `ring` slots
};

struct ScoreParams {
  const void* queries;  // [sequence][query head][d]
  Element query_element;
  i64 query_sequence_stride, query_head_stride;
  int group;  // query heads a KV head
  KeyTableParams key;
  TileView keys;
  const int* tokens;  // one a sequence
  float* out;         // [sequence][query head][out_stride]
  i64 out_sequence_stride, out_stride;
  float gain;
};

struct AttendParams {
  const void* queries;
  Element query_element;
  i64 query_sequence_stride, query_head_stride;
  int group;        // query heads a KV head
  int group_parts;  // rows that share them
  int kv_heads, sequence_count;
  float softmax_scale;
  KeyTableParams key;
  const float* value_centroids;
  int value_table_stride;
  MixingParams value_rotation;  // what takes rotated values back
  TileView keys, values;
  ExactView exact;
  const SequenceState* sequences;
  // Blocks' results (device/schedule.cuh): of each slot all heads of a row, d sums and {maximum (base 2),
  // sum}.
  float* partial_output;
  float* partial_softmax;
  u32* finished;  // [row]: tiles whose sums are written; zero between launches
  void* out;
  Element out_element;
  i64 out_sequence_stride, out_head_stride;
  float* log_sum_exp;  // natural logarithm, [sequence][query head]; may be null
};

struct AppendParams {
  VectorView x;
  Element element;
  u16* out;
  i64 out_sequence_stride, out_head_stride, out_token_stride;
  const TokenRange* ranges;  // source: first slot of x; first, ring, ring_begin: where it goes
  int head_dim, heads;
};

}  // namespace tq::gpu
