#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "core/cache_layer.h"
#include "kernel_templates/device_tables.h"
#include "kernel_templates/gpu_context.h"

// The codecs of core/ on the GPU. All vectors and codes are in device memory; calls put work into the stream
// and return. Codes equal core's, except of coordinates that lie within rounding of a boundary.
namespace tq::gpu {

// Which tokens a call works on, for each of `sequences` sequences: device ranges, or one range for all.
struct Ranges {
  const TokenRange* device = nullptr;
  TokenRange one{};
  int sequences = 1;
  int most_tiles = 1;   // tiles that the largest range touches
  int most_tokens = 0;  // its tokens
};
Ranges one_range(int first, int count);

// Vectors must start at multiples of 16 bytes, and so must their strides. Throws UsageError otherwise.
void check_alignment(const VectorView& vectors, Element element, const char* what);

class GpuKeyCodec {
 public:
  // One codec for all heads or one a head. `side`: rotated values lie in tiles the other way round.
  GpuKeyCodec(GpuContext& gpu, const std::vector<const KeyCodec*>& heads, Side side);

  const KeySpec& spec() const { return tables_.spec(); }
  const DeviceKeyTables& tables() const { return tables_; }

  void encode(const VectorView& x, Element element, int heads, const Ranges& ranges, const TileView& out,
              bool round_to_half, StreamRef stream);
  // rows of one head follow each other, core/key_codec.h's arrays one head after the other.
  void encode(const VectorView& x, Element element, int heads, int rows, const CanonicalKeys& out,
              StreamRef stream);
  void decode(const TileView& tiles, int heads, const Ranges& ranges, const VectorView& out, Element element,
              StreamRef stream);
  void decode(const CanonicalKeys& codes, int heads, int rows, const VectorView& out, Element element,
              StreamRef stream);

  // rows x d to rotated (and, for prod keys, sketched) float32, core's order: KeyCodec::prepare().
  void prepare(const void* queries, Element element, i64 rows, float* rotated, float* sketched,
               StreamRef stream);

  // gain <q, k^> of `tokens[sequence]` tokens; queries [sequence][query head][d], contiguous; out
  // [sequence][query head][out_stride]. `group` query heads a KV head, 1 to 16.
  void scores(const void* queries, Element element, int group, int heads, int sequences, const int* tokens,
              int most_tokens, const TileView& keys, ScorePart part, float gain, float* out, i64 out_stride,
              StreamRef stream);

 private:
  GpuContext& gpu_;
  DeviceKeyTables tables_;
  Side side_;
};

// Values of either mode.
class GpuValueCodec {
 public:
  GpuValueCodec(GpuContext& gpu, const std::vector<const ValueCodec*>& heads);

  const ValueSpec& spec() const { return spec_; }
  // Rotated values' tables; null in group mode.
  const GpuKeyCodec* rotated() const { return rotated_ ? &*rotated_ : nullptr; }
  GpuKeyCodec* rotated() { return rotated_ ? &*rotated_ : nullptr; }

  void encode(const VectorView& x, Element element, int heads, const Ranges& ranges, const TileView& out,
              bool round_to_half, StreamRef stream);
  void decode(const TileView& tiles, int heads, const Ranges& ranges, const VectorView& out, Element element,
              StreamRef stream);
  // Group mode only; rotated values go through rotated().
  void encode(const VectorView& x, Element element, int heads, int rows, const CanonicalGroups& out,
              StreamRef stream);
  void decode(const CanonicalGroups& codes, int heads, int rows, const VectorView& out, Element element,
              StreamRef stream);

 private:
  GpuContext& gpu_;
  ValueSpec spec_{};
  std::optional<GpuKeyCodec> rotated_;
};

// out = gain H x for `rows` rows of d; in place where out is in. Throws UsageError for an order that
// core/hadamard.h does not know.
void wht(GpuContext& gpu, int order, Element element, bool transposed, const void* in, void* out, i64 rows,
         float gain, StreamRef stream);

}  // namespace tq::gpu
