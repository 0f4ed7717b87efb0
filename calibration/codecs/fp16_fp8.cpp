// fp16: the coordinates as they are. fp8: e4m3 (largest value 448), one scale a vector, max|x| / 448.
#include <algorithm>
#include <cmath>
#include <limits>

#include "calibration/codecs/baseline_codec.h"

namespace tq {

namespace {

constexpr float kLargestE4m3 = 448;

// To nearest even, saturating; NaN stays NaN.
float rounded_to_e4m3(float value) {
  if (std::isnan(value)) return value;
  constexpr int kMantissaBits = 3, kLeastExponent = -6;  // of what is not subnormal
  const float magnitude = std::min(std::fabs(value), kLargestE4m3);
  if (magnitude == 0) return 0;
  const int exponent = std::max(std::ilogb(magnitude), kLeastExponent) - kMantissaBits;
  const float code = std::nearbyint(std::ldexp(magnitude, -exponent));
  return std::copysign(std::ldexp(code, exponent), value);
}

void store_fp16(const float* x, std::size_t rows, std::size_t d, float* out) {
  std::transform(x, x + rows * d, out, rounded_to_half);
}

void store_fp8(const float* x, std::size_t rows, std::size_t d, float* out) {
  for (std::size_t row = 0; row < rows; ++row, x += d, out += d) {
    const float scale = rounded_to_half(std::fabs(largest_magnitude(x, d)) / kLargestE4m3);
    for (std::size_t j = 0; j < d; ++j) {
      const float code = scale > 0 || std::isnan(x[j]) ? rounded_to_e4m3(x[j] / scale) : 0;
      out[j] = std::isnan(code) ? std::numeric_limits<float>::quiet_NaN() : code * scale;
    }
  }
}

}  // namespace

const StorageCodec& fp16_codec() {
  static const BaselineCodec codec(
      "fp16", [](int d) { return 2 * d; }, store_fp16);
  return codec;
}

const StorageCodec& fp8_codec() {
  static const BaselineCodec codec(
      "fp8", [](int d) { return d + 2; }, store_fp8);
  return codec;
}

}  // namespace tq
