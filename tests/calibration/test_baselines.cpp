#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <set>
#include <string>
#include <vector>

#include "calibration/codecs/registry.h"
#include "core/error.h"
#include "tests/support/test_seed.h"

namespace {

using tq::StorageCodec;

constexpr int kDim = 96;
constexpr std::size_t kD = kDim;
constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

std::vector<const StorageCodec*> baselines() {
  std::vector<const StorageCodec*> list;
  for (const StorageCodec* codec : tq::storage_codecs()) {
    if (codec->baseline()) list.push_back(codec);
  }
  return list;
}

std::vector<float> stored(const std::string& name, const std::vector<float>& x, int d = kDim) {
  std::vector<float> out(x.size(), -1);
  tq::storage_values({tq::storage_codec_named(name)}, d, nullptr)
      ->encode_decode(x.data(), x.size() / static_cast<std::size_t>(d), out.data());
  return out;
}

// Vectors of sizes from where scales are subnormal in binary16 to where they are large.
std::vector<float> sized_vectors(std::uint32_t purpose, std::size_t rows) {
  tq::Random random = tq::test::test_random(purpose);
  std::vector<float> x = tq::test::normal_values(random, rows * kD);
  for (std::size_t i = 0; i < x.size(); ++i) {
    x[i] = std::ldexp(x[i], static_cast<int>(i / kD % 24) - 12);
  }
  return x;
}

// --- The reference: float64, each format from a list of all the numbers that it has.

// The number in a sorted list that is nearest, of two as near the one with an even place in the list; outside
// the list its end. Places count from zero, which is even in both formats.
double nearest(const std::vector<double>& numbers, double value) {
  const double magnitude = std::fabs(value);
  std::size_t best = 0;
  for (std::size_t i = 1; i < numbers.size(); ++i) {
    const double gain = std::fabs(numbers[best] - magnitude) - std::fabs(numbers[i] - magnitude);
    if (gain > 0 || (gain == 0 && i % 2 == 0)) best = i;
  }
  return std::copysign(numbers[best], value);
}

// The 127 finite magnitudes of e4m3: the codes of the OCP's "E4M3", 0x00 to 0x7e; 0x7f is its NaN.
std::vector<double> e4m3_magnitudes() {
  std::vector<double> numbers;
  for (int code = 0; code < 0x7f; ++code) {
    const int exponent = code >> 3, mantissa = code & 7;
    numbers.push_back(exponent == 0 ? mantissa * 0.001953125                             // 2^-9
                                    : (8 + mantissa) * std::pow(2.0, exponent - 10.0));  // 1.m 2^(e-7)
  }
  return numbers;
}

// Binary16 without its code: 11 significant bits, no exponent below -24, no more than 65504.
double half(double value) {
  if (value == 0 || std::isnan(value)) return value;
  const double magnitude = std::min(std::fabs(value), 65504.0);
  const double unit = std::pow(2.0, std::max(std::floor(std::log2(magnitude)) - 10, -24.0));
  const double count = magnitude / unit, below = std::floor(count), rest = count - below;
  const bool up = rest > 0.5 || (rest == 0.5 && std::fmod(below, 2.0) == 1);
  return std::copysign((below + (up ? 1 : 0)) * unit, value);
}

// Of q8_0 and q4_0: the codes of one block of 32, in float32 where llama.cpp's reference is.
struct Block {
  double scale = 0;
  std::vector<int> codes;  // as stored: q4_0's are 0 to 15
};

Block q8_0_reference(const float* x) {
  float amax = 0;
  for (int j = 0; j < 32; ++j) amax = std::max(amax, std::fabs(x[j]));
  const float d = amax / 127, id = d != 0 ? 1 / d : 0;
  Block block{half(d), {}};
  for (int j = 0; j < 32; ++j) {
    const double ratio = static_cast<double>(x[j] * id);
    block.codes.push_back(static_cast<int>(ratio < 0 ? -std::floor(-ratio + 0.5) : std::floor(ratio + 0.5)));
  }
  return block;
}

Block q4_0_reference(const float* x) {
  float amax = 0, signed_max = 0;
  for (int j = 0; j < 32; ++j) {
    if (amax < std::fabs(x[j])) amax = std::fabs(x[j]), signed_max = x[j];
  }
  const float d = signed_max / -8, id = d != 0 ? 1 / d : 0;
  Block block{half(d), {}};
  for (int j = 0; j < 32; ++j) block.codes.push_back(std::min(15, static_cast<int>(x[j] * id + 8.5f)));
  return block;
}

}  // namespace

TEST_CASE("baselines: names and bytes") {
  const std::vector<std::string> names{"fp16", "fp8", "minmax8", "minmax4", "q8_0", "q4_0"};
  const std::vector<int> bytes_of_128{256, 130, 132, 68, 136, 72}, bytes_of_64{128, 66, 68, 36, 68, 36};
  REQUIRE(baselines().size() == names.size());
  for (std::size_t i = 0; i < names.size(); ++i) {
    const tq::StorageConfig config{baselines()[i]};
    CHECK(config.codec->name() == names[i]);
    CHECK(tq::storage_codec_named(names[i]) == config.codec);
    CHECK(describe(config) == names[i]);
    CHECK(bytes_per_token(config, 128) == bytes_of_128[i]);
    CHECK(bytes_per_token(config, 64) == bytes_of_64[i]);
  }
  for (const char* name : {"", "none", "mse", "FP16", "q5_0", "fp"}) {
    CHECK(tq::storage_codec_named(name) == nullptr);
  }
}

TEST_CASE("storage codecs: names are each one's own, and no codec's of core") {
  std::set<std::string_view> names{"none", "mse", "prod", "group", "rotated"};
  for (const StorageCodec* codec : tq::storage_codecs()) {
    CAPTURE(codec->name());
    CHECK(names.insert(codec->name()).second);
  }
}

TEST_CASE("baselines: head dimensions") {
  for (const StorageCodec* baseline : baselines()) {
    const tq::StorageConfig config{baseline};
    CHECK_NOTHROW(validate(config, 96));
    for (const int d : {8, 12, 100, 1032}) CHECK_THROWS_AS(validate(config, d), tq::UsageError);
    if (baseline->name() == "q8_0" || baseline->name() == "q4_0") {
      CHECK_THROWS_AS(tq::storage_keys(config, 80, nullptr), tq::UsageError);
      CHECK_THROWS_AS(tq::storage_values(config, 80, nullptr), tq::UsageError);
    } else {
      CHECK_NOTHROW(validate(config, 80));
    }
  }
}

TEST_CASE("fp16 is binary16") {
  const std::vector<float> x = sized_vectors(1, 200), out = stored("fp16", x);
  for (std::size_t i = 0; i < x.size(); ++i) CHECK(static_cast<double>(out[i]) == half(x[i]));
}

TEST_CASE("fp8 against the table of all its numbers") {
  const std::vector<double> numbers = e4m3_magnitudes();
  REQUIRE(numbers.size() == 127);
  CHECK(numbers.back() == 448);
  CHECK(numbers[1] == 0.001953125);

  // With a largest magnitude of 448 the scale is 1: every number is kept, and those between go to the
  // nearest.
  for (std::size_t i = 0; i + 1 < numbers.size(); ++i) {
    const double low = numbers[i], high = numbers[i + 1], middle = (low + high) / 2;
    std::vector<float> x(kD, 0);
    std::vector<double> expected(kD, 0);
    const double even = i % 2 == 0 ? low : high;
    const double cases[] = {low, high, middle, middle * (1 + 1e-6), middle * (1 - 1e-6)};
    const double results[] = {low, high, even, high, low};
    for (std::size_t j = 0; j < 5; ++j) {
      x[2 * j] = static_cast<float>(cases[j]);
      expected[2 * j] = results[j];
      x[2 * j + 1] = -x[2 * j];
      expected[2 * j + 1] = -expected[2 * j];
    }
    x[kD - 1] = -448;
    expected[kD - 1] = -448;
    const std::vector<float> out = stored("fp8", x);
    for (std::size_t j = 0; j < kD; ++j) CHECK(static_cast<double>(out[j]) == expected[j]);
  }

  const std::vector<float> x = sized_vectors(2, 120), out = stored("fp8", x);
  for (std::size_t row = 0; row < x.size() / kD; ++row) {
    const float* v = x.data() + row * kD;
    float amax = 0;
    for (std::size_t j = 0; j < kD; ++j) amax = std::max(amax, std::fabs(v[j]));
    const float scale = static_cast<float>(half(amax / 448));
    REQUIRE(scale > 0);
    for (std::size_t j = 0; j < kD; ++j) {
      // The code is of the quotient in float32, as whoever stores a cache divides.
      const double expected = nearest(numbers, v[j] / scale) * static_cast<double>(scale);
      const double got = static_cast<double>(out[row * kD + j]);
      CHECK(std::fabs(got - expected) <= 1e-7 * std::fabs(expected));
      if (scale < 0x1p-14f) continue;  // a subnormal scale may be too small for the largest coordinate
      const double error = std::fabs(got - static_cast<double>(v[j]));
      const double half_step = std::max(std::fabs(static_cast<double>(v[j])) / 16, scale * 0.001953125 / 2);
      CHECK(error <= half_step * 1.0001);
    }
  }
}

TEST_CASE("min-max against float64") {
  for (const int bits : {8, 4}) {
    CAPTURE(bits);
    const std::string baseline = bits == 8 ? "minmax8" : "minmax4";
    const std::vector<float> x = sized_vectors(3, 200), out = stored(baseline, x);
    const double largest_code = (1 << bits) - 1;
    for (std::size_t row = 0; row < x.size() / kD; ++row) {
      const auto [low, high] = std::minmax_element(x.begin() + static_cast<std::ptrdiff_t>(row * kD),
                                                   x.begin() + static_cast<std::ptrdiff_t>((row + 1) * kD));
      const double zero = half(*low), scale = half((*high - *low) / static_cast<float>(largest_code));
      if (scale == 0) continue;
      // What rounding zero and scale to binary16 can put the ends off by.
      const double slack =
          std::fabs(*low - zero) + std::fabs(*high - (zero + largest_code * scale)) + 1e-6 * scale;
      for (std::size_t j = 0; j < kD; ++j) {
        const double v = x[row * kD + j], got = out[row * kD + j];
        const double code = std::round((got - zero) / scale);
        CHECK(code >= 0);
        CHECK(code <= largest_code);
        CHECK(std::fabs(got - (zero + code * scale)) <= 1e-6 * (std::fabs(zero) + scale * largest_code));
        CHECK(std::fabs(got - v) <= scale / 2 + slack);
        // The nearest of the codes there are.
        const double best = std::clamp((v - zero) / scale, 0.0, largest_code);
        CHECK(std::fabs(code - best) <= 0.5001);
      }
    }
  }
}

TEST_CASE("q8_0 and q4_0 against llama.cpp's definitions") {
  const std::vector<float> x = sized_vectors(4, 400);
  for (const bool eight : {true, false}) {
    CAPTURE(eight);
    const std::vector<float> out = stored(eight ? "q8_0" : "q4_0", x);
    for (std::size_t at = 0; at < x.size(); at += 32) {
      const Block block = eight ? q8_0_reference(x.data() + at) : q4_0_reference(x.data() + at);
      const double largest_code = eight ? 127 : 8;
      float amax = 0;
      for (std::size_t j = 0; j < 32; ++j) amax = std::max(amax, std::fabs(x[at + j]));
      const double step = amax / largest_code,
                   slack = largest_code * std::fabs(step - std::fabs(block.scale));
      for (std::size_t j = 0; j < 32; ++j) {
        const int code = block.codes[j] - (eight ? 0 : 8);
        const double got = out[at + j], v = x[at + j];
        CHECK(got == block.scale * code);  // exact: at most 11 + 8 bits
        // On the side without a code 8, q4_0 is off by up to a whole step.
        const bool clipped = !eight && block.codes[j] == 15;
        CHECK(std::fabs(got - v) <= (clipped ? 1 : 0.5) * step * 1.0001 + slack);
      }
    }
  }
}

TEST_CASE("q8_0 and q4_0 of blocks written by hand") {
  std::vector<float> x(32, 0);
  x[0] = 127;
  x[1] = 0.5f;  // half away from zero, not to even
  x[2] = -2.5f;
  x[3] = -126.4f;
  std::vector<float> out = stored("q8_0", x, 32);
  CHECK(out[0] == 127);
  CHECK(out[1] == 1);
  CHECK(out[2] == -3);
  CHECK(out[3] == -126);
  // The largest magnitude has code 0, whatever its sign; the other end is code 15, seven steps.
  for (const float sign : {1.0f, -1.0f}) {
    std::fill(x.begin(), x.end(), 0.0f);
    x[0] = sign * 16;
    x[1] = sign * -16;  // as large, but not the first
    x[2] = sign * 1;    // half a step goes up in the code, so away from the largest value
    x[3] = sign * -3.1f;
    out = stored("q4_0", x, 32);
    CHECK(out[0] == sign * 16);
    CHECK(out[1] == sign * -14);
    CHECK(out[2] == 0);
    CHECK(out[3] == sign * -4);
  }
}

TEST_CASE("baselines: zero vectors, extremes and NaN") {
  for (const StorageCodec* codec : baselines()) {
    const std::string baseline(codec->name());
    CAPTURE(baseline);
    const std::vector<float> zeros(2 * kD, 0), none = stored(baseline, zeros);
    for (const float value : none) CHECK(value == 0);

    // Too small for any binary16 scale, too large for one: finite, and on the right side.
    for (const float size : {1e-44f, 1e-38f, 1e-12f, 1e5f, 1e20f, 3e38f, kInfinity}) {
      CAPTURE(size);
      std::vector<float> x(kD);
      for (std::size_t j = 0; j < kD; ++j) x[j] = j % 2 == 0 ? size : -size;
      const std::vector<float> out = stored(baseline, x);
      for (std::size_t j = 0; j < kD; ++j) {
        REQUIRE(std::isfinite(out[j]));
        if (size >= 1e5f) CHECK((out[j] > 0) == (x[j] > 0));
        if (size < 1e5f) CHECK(std::fabs(out[j]) <= 6e-6f);
      }
    }

    std::vector<float> x = sized_vectors(5, 3);
    x[kD + 41] = 100;  // the scale's, with and without the NaN
    const std::vector<float> before = stored(baseline, x);
    x[kD + 40] = kNan;
    const std::vector<float> after = stored(baseline, x);
    std::size_t begin = kD, end = 2 * kD;  // what has a NaN in its scale
    if (baseline == "fp16" || baseline == "fp8") begin = kD + 40, end = begin + 1;
    if (baseline == "q8_0" || baseline == "q4_0") begin = kD + 32, end = begin + 32;
    for (std::size_t i = 0; i < x.size(); ++i) {
      if (i >= begin && i < end) {
        CHECK(std::isnan(after[i]));
      } else {
        CHECK(after[i] == before[i]);
      }
    }
  }
}

TEST_CASE("baselines as backends") {
  constexpr std::size_t kRows = 37, kQueries = 5;
  tq::Random random = tq::test::test_random(6);
  const std::vector<float> x = tq::test::normal_values(random, kRows * kD);
  const std::vector<float> queries = tq::test::normal_values(random, kQueries * kD);
  for (const StorageCodec* codec : baselines()) {
    CAPTURE(codec->name());
    const tq::StorageConfig config{codec};
    const std::vector<float> expected = stored(std::string(codec->name()), x);
    std::vector<float> out(x.size());
    tq::storage_values(config, kDim, nullptr)->encode_decode(x.data(), kRows, out.data());
    CHECK(out == expected);
    const auto keys = tq::storage_keys(config, kDim, nullptr)->encode(x.data(), kRows);
    keys->decode(out.data());
    CHECK(out == expected);
    std::vector<float> scores(kQueries * kRows);
    keys->scores(queries.data(), kQueries, scores.data());
    for (std::size_t q = 0; q < kQueries; ++q) {
      for (std::size_t t = 0; t < kRows; ++t) {
        double exact = 0;
        for (std::size_t j = 0; j < kD; ++j) {
          exact += static_cast<double>(queries[q * kD + j]) * static_cast<double>(expected[t * kD + j]);
        }
        CHECK(static_cast<double>(scores[q * kRows + t]) == doctest::Approx(exact).epsilon(1e-4).scale(10));
      }
    }
  }
}
