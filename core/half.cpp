#include "core/half.h"

#include <algorithm>
#include <bit>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "core/half.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace tq::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using HalfFloat = hn::CappedTag<float, 16>;
using HalfInt = hn::Rebind<std::int32_t, HalfFloat>;
using HalfBits = hn::Rebind<std::uint16_t, HalfFloat>;

// The scalar functions below, step by step, on whole vectors. Return how many elements they have converted.
// The processor's own conversions are left alone: not every target has them, and they treat NaNs otherwise.
std::size_t widen_halves(const std::uint16_t* HWY_RESTRICT source, float* HWY_RESTRICT destination,
                         std::size_t count) {
  const HalfFloat f;
  const HalfInt i32;
  const HalfBits u16;
  const auto constant = [&](std::int32_t value) HWY_ATTR { return hn::Set(i32, value); };
  std::size_t i = 0;
  for (; i + hn::Lanes(f) <= count; i += hn::Lanes(f)) {
    const auto bits = hn::PromoteTo(i32, hn::LoadU(u16, source + i));
    const auto magnitude = hn::ShiftLeft<13>(hn::And(bits, constant(0x7fff)));
    const auto scaled = hn::Mul(hn::BitCast(f, magnitude), hn::Set(f, 0x1p112f));
    const auto exponent = hn::And(bits, constant(0x7c00));
    const auto special = hn::IfThenElseZero(hn::Eq(exponent, constant(0x7c00)), constant(0x7f800000));
    const auto sign = hn::ShiftLeft<16>(hn::And(bits, constant(0x8000)));
    hn::StoreU(hn::BitCast(f, hn::Or(hn::Or(hn::BitCast(i32, scaled), special), sign)), f, destination + i);
  }
  return i;
}

std::size_t narrow_halves(const float* HWY_RESTRICT source, std::uint16_t* HWY_RESTRICT destination,
                          std::size_t count, bool saturate) {
  const HalfFloat f;
  const HalfInt i32;
  const HalfBits u16;
  const auto constant = [&](std::int32_t value) HWY_ATTR { return hn::Set(i32, value); };
  const auto infinity = constant(0x7f800000);
  const auto most = saturate ? constant(0x477fe000) : infinity;  // 65504
  std::size_t i = 0;
  for (; i + hn::Lanes(f) <= count; i += hn::Lanes(f)) {
    const auto bits = hn::BitCast(i32, hn::LoadU(f, source + i));
    const auto sign = hn::And(hn::ShiftRight<16>(bits), constant(0x8000));
    const auto magnitude = hn::And(bits, constant(0x7fffffff));
    const auto limited = hn::Min(magnitude, most);
    const auto odd = hn::And(hn::ShiftRight<13>(limited), constant(1));
    const auto normal = hn::ShiftRight<13>(hn::Add(hn::Sub(limited, constant(0x38000000 - 0x0fff)), odd));
    const auto subnormal =
        hn::Sub(hn::BitCast(i32, hn::Add(hn::BitCast(f, limited), hn::Set(f, 0.5f))), constant(0x3f000000));
    auto half = hn::IfThenElse(hn::Lt(limited, constant(0x38800000)), subnormal, normal);
    half = hn::IfThenElse(hn::Gt(limited, constant(0x477fefff)), constant(0x7c00), half);
    half = hn::IfThenElse(hn::Gt(magnitude, infinity), constant(0x7e00), half);
    hn::StoreU(hn::DemoteTo(u16, hn::Or(half, sign)), u16, destination + i);
  }
  return i;
}

}  // namespace tq::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tq {
namespace {
HWY_EXPORT(widen_halves);
HWY_EXPORT(narrow_halves);

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
  const std::size_t done = HWY_DYNAMIC_DISPATCH(widen_halves)(source, destination, count);
  std::transform(source + done, source + count, destination + done, widen_half);
}
void bfloat16_to_float(const std::uint16_t* source, float* destination, std::size_t count) {
  std::transform(source, source + count, destination, widen_bfloat16);
}
void float_to_half(const float* source, std::uint16_t* destination, std::size_t count) {
  const std::size_t done = HWY_DYNAMIC_DISPATCH(narrow_halves)(source, destination, count, false);
  std::transform(source + done, source + count, destination + done, narrow_half);
}
void float_to_half_saturate(const float* source, std::uint16_t* destination, std::size_t count) {
  const std::size_t done = HWY_DYNAMIC_DISPATCH(narrow_halves)(source, destination, count, true);
  std::transform(source + done, source + count, destination + done,
                 [](float value) { return float_to_half_saturate(value); });
}
void float_to_bfloat16(const float* source, std::uint16_t* destination, std::size_t count) {
  std::transform(source, source + count, destination, narrow_bfloat16);
}

}  // namespace tq
#endif
