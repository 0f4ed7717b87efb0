// q8_0: llama.cpp's, blocks of 32, scale max|x| / 127. q4_0: llama.cpp's, blocks of 32, scale (signed value
// of the largest magnitude) / -8.
#include <algorithm>
#include <cmath>
#include <limits>

#include "calibration/codecs/baseline_codec.h"

namespace tq {

namespace {

constexpr std::size_t kBlock = 32;
constexpr float kLargestHalf = 65504;

// quantize_row_q8_0_ref and quantize_row_q4_0_ref of llama.cpp, whose codes come from the scale before it is
// rounded, and then the decoding with the rounded scale. Theirs leave open what happens to a scale that
// binary16 cannot hold; here it saturates, or is zero and so is the block. `code` turns x / scale into a code
// less its zero point.
template <typename Code>
void scaled_block(const float* x, float scale, const Code& code, float* out) {
  scale = std::clamp(scale, -kLargestHalf, kLargestHalf);
  const float stored = rounded_to_half(scale);
  const bool nan = holds_nan(x, kBlock);
  if (nan || stored == 0) {
    std::fill_n(out, kBlock, nan ? std::numeric_limits<float>::quiet_NaN() : 0);
    return;
  }
  const float inverse = 1 / scale;
  for (std::size_t j = 0; j < kBlock; ++j) out[j] = code(x[j] * inverse) * stored;
}

void store_q8_0(const float* x, std::size_t rows, std::size_t d, float* out) {
  for (std::size_t at = 0; at < rows * d; at += kBlock) {
    scaled_block(
        x + at, std::fabs(largest_magnitude(x + at, kBlock)) / 127,
        [](float ratio) { return std::clamp(std::round(ratio), -127.0f, 127.0f); }, out + at);
  }
}

void store_q4_0(const float* x, std::size_t rows, std::size_t d, float* out) {
  for (std::size_t at = 0; at < rows * d; at += kBlock) {
    scaled_block(
        x + at, largest_magnitude(x + at, kBlock) / -8,
        [](float ratio) { return std::trunc(std::clamp(ratio + 8.5f, 0.0f, 15.0f)) - 8; }, out + at);
  }
}

}  // namespace

const StorageCodec& q8_0_codec() {
  static const BaselineCodec codec(
      "q8_0", [](int d) { return d / 32 * 34; }, store_q8_0, kBlock);
  return codec;
}

const StorageCodec& q4_0_codec() {
  static const BaselineCodec codec(
      "q4_0", [](int d) { return d / 32 * 18; }, store_q4_0, kBlock);
  return codec;
}

}  // namespace tq
