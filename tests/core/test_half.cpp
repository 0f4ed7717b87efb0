#include <doctest/doctest.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "core/half.h"
#include "tests/support/reference.h"
#include "tests/support/simd_targets.h"
#include "tests/support/test_seed.h"

namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

bool is_half_nan(std::uint16_t bits) { return (bits & 0x7fffu) > 0x7c00u; }

std::uint16_t bfloat16_reference(float value) {
  // Of the two bfloat16 that enclose the value, the nearer; the even one on a tie.
  const std::uint32_t bits = std::bit_cast<std::uint32_t>(value);
  const std::uint32_t low = bits & 0xffff0000u, high = low + 0x10000u;
  const double at_low = std::bit_cast<float>(low);
  double at_high = std::bit_cast<float>(high);
  if (std::isinf(at_high)) at_high = std::copysign(0x1p128, at_high);
  const double down = std::fabs(value - at_low), up = std::fabs(at_high - value);
  const bool take_low = down < up || (down == up && (low >> 16) % 2 == 0);
  return static_cast<std::uint16_t>((take_low ? low : high) >> 16);
}

}  // namespace

TEST_CASE("every half widens to its value and comes back") {
  int wrong_value = 0, wrong_bits = 0;
  for (unsigned pattern = 0; pattern < 0x10000u; ++pattern) {
    const auto bits = static_cast<std::uint16_t>(pattern);
    const float value = tq::half_to_float(bits);
    if (is_half_nan(bits)) {
      wrong_value += !std::isnan(value);
      wrong_bits += !is_half_nan(tq::float_to_half(value));
      continue;
    }
    const double expected = tq::reference::from_half(bits);
    wrong_value += static_cast<double>(value) != expected || std::signbit(value) != std::signbit(expected);
    wrong_bits += tq::float_to_half(value) != bits;
  }
  CHECK(wrong_value == 0);
  CHECK(wrong_bits == 0);
}

TEST_CASE("the reference rounding agrees with the compiler's _Float16") {
  tq::Random random = tq::test::test_random(10);
  int wrong = 0;
  for (int i = 0; i < 200000; ++i) {
    const float value = std::bit_cast<float>(random.bits32());
    if (std::isnan(value)) continue;
    wrong += tq::reference::to_half(value) != std::bit_cast<std::uint16_t>(static_cast<_Float16>(value));
  }
  CHECK(wrong == 0);
}

TEST_CASE("float_to_half rounds to nearest even") {
  int wrong = 0;
  const auto check = [&](float value) {
    wrong += tq::float_to_half(value) != tq::reference::to_half(value);
    wrong += tq::float_to_half(-value) != tq::reference::to_half(-value);
  };
  // Every half, the tie above it and the floats on both sides of the tie; subnormals and the overflow
  // threshold are among them.
  for (unsigned bits = 0; bits < 0x7c00u; ++bits) {
    const double low = tq::reference::from_half(static_cast<std::uint16_t>(bits));
    const double high =
        bits == 0x7bffu ? 65536 : tq::reference::from_half(static_cast<std::uint16_t>(bits + 1));
    const auto tie = static_cast<float>(0.5 * (low + high));
    check(static_cast<float>(low));
    check(tie);
    check(std::nextafter(tie, 0.0f));
    check(std::nextafter(tie, kInfinity));
  }
  tq::Random random = tq::test::test_random(11);
  for (int i = 0; i < 200000; ++i) {
    const float value = std::bit_cast<float>(random.bits32());
    if (!std::isnan(value)) check(value);
  }
  CHECK(wrong == 0);
  CHECK(tq::float_to_half(65519.996f) == 0x7bffu);
  CHECK(tq::float_to_half(65520.0f) == 0x7c00u);
  CHECK(tq::float_to_half(-kInfinity) == 0xfc00u);
  CHECK(tq::float_to_half(0x1p-25f) == 0);  // a tie with 0
  CHECK(tq::float_to_half(0x1.000002p-25f) == 1);
  CHECK(is_half_nan(tq::float_to_half(kNan)));
}

TEST_CASE("float_to_half_saturate keeps to the finite halves") {
  CHECK(tq::float_to_half_saturate(65519.0f) == 0x7bffu);
  CHECK(tq::float_to_half_saturate(65520.0f) == 0x7bffu);
  CHECK(tq::float_to_half_saturate(1e30f) == 0x7bffu);
  CHECK(tq::float_to_half_saturate(kInfinity) == 0x7bffu);
  CHECK(tq::float_to_half_saturate(-1e30f) == 0xfbffu);
  CHECK(tq::float_to_half_saturate(-kInfinity) == 0xfbffu);
  CHECK(tq::float_to_half_saturate(1.0f) == 0x3c00u);
  CHECK(tq::float_to_half_saturate(-0.0f) == 0x8000u);
  CHECK(is_half_nan(tq::float_to_half_saturate(kNan)));
}

TEST_CASE("every bfloat16 comes back, and narrowing rounds to nearest even") {
  int wrong = 0;
  for (unsigned pattern = 0; pattern < 0x10000u; ++pattern) {
    const auto bits = static_cast<std::uint16_t>(pattern);
    const float value = tq::bfloat16_to_float(bits);
    if ((bits & 0x7fffu) > 0x7f80u) {
      wrong += !std::isnan(value) || !std::isnan(tq::bfloat16_to_float(tq::float_to_bfloat16(value)));
    } else {
      wrong += tq::float_to_bfloat16(value) != bits;
    }
  }
  CHECK(wrong == 0);
  tq::Random random = tq::test::test_random(12);
  for (int i = 0; i < 200000; ++i) {
    // The low half is often exactly a tie.
    const std::uint32_t bits =
        (random.bits32() & 0xffff0000u) | (i % 2 == 0 ? 0x8000u : random.bits32() >> 16);
    const float value = std::bit_cast<float>(bits);
    if (std::isfinite(value)) wrong += tq::float_to_bfloat16(value) != bfloat16_reference(value);
  }
  CHECK(wrong == 0);
  CHECK(tq::float_to_bfloat16(std::numeric_limits<float>::max()) == 0x7f80u);
  CHECK(std::isnan(tq::bfloat16_to_float(tq::float_to_bfloat16(std::bit_cast<float>(0x7f800001u)))));
}

TEST_CASE("the array conversions are the scalar ones, on every SIMD target") {
  tq::Random random = tq::test::test_random(13);
  // Every half, and floats of every kind: any bits at all, and such as lie in the range of halves.
  std::vector<std::uint16_t> all_halves(0x10000);
  for (std::size_t i = 0; i < all_halves.size(); ++i) all_halves[i] = static_cast<std::uint16_t>(i);
  std::vector<float> any(0x10000);
  for (std::size_t i = 0; i < any.size(); ++i) {
    any[i] = i % 2 == 0 ? std::bit_cast<float>(random.bits32())
                        : static_cast<float>(random.normal() * std::exp2(40 * random.uniform() - 26));
  }
  any[0] = kNan, any[1] = -kNan, any[2] = kInfinity, any[3] = -kInfinity;
  const auto same = [](float a, float b) {
    return std::bit_cast<std::uint32_t>(a) == std::bit_cast<std::uint32_t>(b);
  };
  tq::test::on_every_target([&] {
    for (const std::size_t count : {0u, 1u, 7u, 8u, 33u, 0x10000u}) {
      CAPTURE(count);
      std::vector<std::uint16_t> halves(count + 1, 0xabcdu), finite = halves, brains = halves;
      std::vector<float> from_halves(count + 1, -7), from_brains = from_halves;
      tq::float_to_half(any.data(), halves.data(), count);
      tq::float_to_half_saturate(any.data(), finite.data(), count);
      tq::float_to_bfloat16(any.data(), brains.data(), count);
      tq::half_to_float(all_halves.data(), from_halves.data(), count);
      tq::bfloat16_to_float(all_halves.data(), from_brains.data(), count);
      int wrong = 0;
      for (std::size_t i = 0; i < count; ++i) {
        wrong += halves[i] != tq::float_to_half(any[i]);
        wrong += finite[i] != tq::float_to_half_saturate(any[i]);
        wrong += brains[i] != tq::float_to_bfloat16(any[i]);
        wrong += !same(from_halves[i], tq::half_to_float(all_halves[i]));
        wrong += !same(from_brains[i], tq::bfloat16_to_float(all_halves[i]));
      }
      CHECK(wrong == 0);
      CHECK(halves[count] == 0xabcdu);
      CHECK(finite[count] == 0xabcdu);
      CHECK(brains[count] == 0xabcdu);
      CHECK(from_halves[count] == -7);
      CHECK(from_brains[count] == -7);
    }
  });
}
