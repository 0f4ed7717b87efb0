#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "calibration/codecs/bitshift_trellis.h"
#include "core/codec_config.h"
#include "core/rotation.h"

namespace tq {

// Encoded vectors, one row each.
struct EncodedTrellis {
  std::size_t rows = 0;
  std::vector<std::uint8_t> codes;    // rows x d b / 8: symbols packed by core/packing.h
  std::vector<std::uint16_t> scales;  // rows, binary16: g
};

// Trellis-coded vectors: core's mse key codec with a closed sequence of a bitshift trellis in the place of d
// separate indices. y = Pi x / ||x||; c_t = levels[w_t] / sqrt(d), the nearest to y; reconstruction g Pi^T c
// with g by the scale rule. As many bytes as mse of the same bits: d b / 8 + 2. Immutable; safe to share
// between threads; results depend on neither the thread count nor the SIMD target.
class TrellisCodec {
 public:
  // 2^12 levels, 16 KiB: with twice as many a search takes twice as long and the error falls by a fiftieth.
  static constexpr int kWindowBits = 12;

  // bits 1..4.
  TrellisCodec(int bits, ScaleRule scale, std::shared_ptr<const Rotation> rotation);

  // x: rows x d. A zero vector decodes to zeros; a NaN stays in its own row. Scales saturate at 65504.
  void encode(const float* x, std::size_t rows, EncodedTrellis& out) const;
  // out: rows x d.
  void decode(const EncodedTrellis& encoded, float* out) const;

  const BitshiftTrellis& trellis() const { return trellis_; }

 private:
  ScaleRule scale_;
  std::shared_ptr<const Rotation> rotation_;
  BitshiftTrellis trellis_;
};

}  // namespace tq
