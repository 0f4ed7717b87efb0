#include "core/half.h"

#include <algorithm>
#include <bit>

namespace tq {
namespace {

// Branch-free so that loops over it vectorise: shift exponent and mantissa into place, rescale by 2^112
// (exact, also for subnormals), and put infinities and NaNs back.
inline float widen_half(std::uint16_t bits) {
  const std::uint32_t magnitude = static_cast<std::uint32_t>(bits & 0x7fffu) << 13;
  const float scaled = std::bit_cast<float>(magnitude) * 0x1p112f;
  const std::uint32_t special = (bits & 0x7c00u) == 0x7c00u ? 0x7f800000u : 0u;
  const std::uint32_t sign = static_cast<std::uint32_t>(bits & 0x8000u) << 16;
  return std::bit_cast<float>(std::bit_cast<std::uint32_t>(scaled) | special | sign);
}

inline std::uint16_t narrow_half(float value) {
  const std::uint32_t bits = std::bit_cast<std::uint32_t>(value);
  const std::uint32_t sign = (bits >> 16) & 0x8000u;
  const std::uint32_t magnitude = bits & 0x7fffffffu;
  std::uint32_t half;
  if (magnitude > 0x7f800000u) {
    half = 0x7e00u;  // NaN
  } else if (magnitude >= 0x477ff000u) {
    half = 0x7c00u;  // 65520 and more round to infinity
  } else if (magnitude < 0x38800000u) {
    // Subnormal half: adding 0.5 leaves the half's mantissa, rounded to nearest even, in the low bits of the
    // sum.
    half = std::bit_cast<std::uint32_t>(std::bit_cast<float>(magnitude) + 0.5f) - 0x3f000000u;
  } else {
    half = (magnitude - 0x38000000u + 0x0fffu + ((magnitude >> 13) & 1u)) >> 13;
  }
  return static_cast<std::uint16_t>(half | sign);
}

inline float widen_bfloat16(std::uint16_t bits) {
  return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16);
}

inline std::uint16_t narrow_bfloat16(float value) {
  const std::uint32_t bits = std::bit_cast<std::uint32_t>(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<std::uint16_t>((bits >> 16) | 0x40u);
  return static_cast<std::uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

}  // namespace

float half_to_float(std::uint16_t bits) { return widen_half(bits); }
std::uint16_t float_to_half(float value) { return narrow_half(value); }

std::uint16_t float_to_half_saturate(float value) {
  constexpr float kLargestHalf = 65504.0f;
  return narrow_half(value > kLargestHalf ? kLargestHalf : value < -kLargestHalf ? -kLargestHalf : value);
}

float bfloat16_to_float(std::uint16_t bits) { return widen_bfloat16(bits); }
std::uint16_t float_to_bfloat16(float value) { return narrow_bfloat16(value); }

void half_to_float(const std::uint16_t* source, float* destination, std::size_t count) {
  std::transform(source, source + count, destination, widen_half);
}
void bfloat16_to_float(const std::uint16_t* source, float* destination, std::size_t count) {
  std::transform(source, source + count, destination, widen_bfloat16);
}
void float_to_half(const float* source, std::uint16_t* destination, std::size_t count) {
  std::transform(source, source + count, destination, narrow_half);
}
void float_to_bfloat16(const float* source, std::uint16_t* destination, std::size_t count) {
  std::transform(source, source + count, destination, narrow_bfloat16);
}

}  // namespace tq
