#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <string>
#include <variant>
#include <vector>

#include "core/error.h"
#include "core/half.h"
#include "core/value_codec.h"
#include "tests/support/reference.h"
#include "tests/support/test_seed.h"

namespace ref = tq::reference;
using tq::EncodedGroups;
using tq::EncodedValues;
using tq::Rotation;
using tq::RotationKind;
using tq::ScaleRule;
using tq::ValueCodec;
using tq::ValueConfig;
using tq::ValueMode;
using tq::test::normal_values;
using tq::test::test_random;

namespace {

ValueConfig group(int bits, int size) { return {ValueMode::group, bits, size, ScaleRule::nc}; }

ValueCodec group_codec(int bits, int size, int d) { return ValueCodec(group(bits, size), d, nullptr, {}); }

ValueCodec rotated_codec(int bits, RotationKind kind, int d, std::uint64_t seed,
                         ScaleRule rule = ScaleRule::nc) {
  const ValueConfig config{ValueMode::rotated, bits, 32, rule};
  return ValueCodec(config, d, std::make_shared<const Rotation>(Rotation::make(kind, d, seed)),
                    tq::default_value_table(config, d));
}

EncodedValues encode(const ValueCodec& codec, const std::vector<float>& x) {
  EncodedValues values;
  codec.encode(x.data(), x.size() / static_cast<std::size_t>(codec.head_dim()), values);
  return values;
}

std::vector<float> decode(const ValueCodec& codec, const EncodedValues& values) {
  std::vector<float> out(tq::row_count(values) * static_cast<std::size_t>(codec.head_dim()));
  codec.decode(values, out.data());
  return out;
}

double mean_cosine(const ValueCodec& codec, const std::vector<float>& x) {
  const auto d = static_cast<std::size_t>(codec.head_dim());
  const std::vector<float> decoded = decode(codec, encode(codec, x));
  double sum = 0;
  for (std::size_t i = 0; i < x.size(); i += d) {
    sum += ref::cosine(ref::widen({&x[i], d}), ref::widen({&decoded[i], d}));
  }
  return sum / (static_cast<double>(x.size()) / static_cast<double>(d));
}

}  // namespace

TEST_CASE("group values agree with the reference") {
  tq::Random random = test_random(60);
  for (const int bits : {2, 3, 4, 8}) {
    for (const int size : {8, 16, 32, 64}) {
      for (const int d : {64, 192, 576}) {
        CAPTURE(bits);
        CAPTURE(size);
        CAPTURE(d);
        constexpr std::size_t kRows = 35;
        const auto n = static_cast<std::size_t>(d), gs = static_cast<std::size_t>(size), groups = n / gs;
        std::vector<float> x = normal_values(random, kRows * n);
        for (std::size_t i = 0; i < x.size(); i += gs) {
          const float scale = std::exp2(static_cast<float>(random.below(16)) - 8), shift = x[i] * 3;
          for (std::size_t j = i; j < i + gs; ++j) x[j] = x[j] * scale + shift;
        }
        const ValueCodec codec = group_codec(bits, size, d);
        const EncodedValues values = encode(codec, x);
        const EncodedGroups& encoded = std::get<EncodedGroups>(values);
        const std::vector<float> decoded = decode(codec, values);
        const std::size_t row_bytes = n * static_cast<std::size_t>(bits) / 8;
        REQUIRE(encoded.rows == kRows);
        REQUIRE(encoded.codes.size() == kRows * row_bytes);
        REQUIRE(encoded.zeros.size() == kRows * groups);
        REQUIRE(encoded.scales.size() == kRows * groups);
        int wrong_zeros = 0, wrong_scales = 0, wrong_codes = 0, on_a_tie = 0, wrong_bytes = 0;
        double error = 0;
        for (std::size_t t = 0; t < kRows; ++t) {
          const auto bytes = std::span(encoded.codes).subspan(t * row_bytes, row_bytes);
          const std::vector<int> codes = ref::unpack(bytes, n, bits);
          const std::vector<std::uint8_t> packed = ref::pack(codes, bits);
          wrong_bytes += !std::equal(packed.begin(), packed.end(), bytes.begin());
          for (std::size_t g = 0; g < groups; ++g) {
            const float* source = &x[t * n + g * gs];
            ref::Group expected = ref::quantise_group({source, gs}, bits);
            wrong_zeros += encoded.zeros[t * groups + g] != expected.zero;
            // (max - min) / (2^b - 1) is rounded to float32 first, which moves a scale near a tie.
            const std::uint16_t scale = encoded.scales[t * groups + g];
            if (scale != expected.scale) {
              const auto [low, high] = std::minmax_element(source, source + gs);
              const double exact =
                  (static_cast<double>(*high) - static_cast<double>(*low)) / ((1 << bits) - 1);
              wrong_scales += std::fabs(ref::from_half(scale) - exact) > ref::half_rounding(exact) * 1.001;
              continue;
            }
            for (std::size_t j = 0; j < gs; ++j) {
              if (codes[g * gs + j] == expected.codes[j]) continue;
              const double place = (static_cast<double>(source[j]) - ref::from_half(expected.zero)) /
                                   ref::from_half(expected.scale);
              ++(std::fabs(place - std::floor(place) - 0.5) < 1e-4 ? on_a_tie : wrong_codes);
              expected.codes[j] = codes[g * gs + j];
            }
            const ref::Vector out = ref::widen({&decoded[t * n + g * gs], gs});
            error = std::max(error, ref::relative_error(out, ref::reconstruct(expected)));
          }
        }
        CHECK(wrong_zeros == 0);
        CHECK(wrong_scales == 0);
        CHECK(wrong_codes == 0);
        CHECK(wrong_bytes == 0);
        CHECK(on_a_tie < 10);
        CHECK(error < 1e-6);
      }
    }
  }
}

TEST_CASE("group values: constant groups, overflow and a NaN") {
  constexpr int kDim = 64;
  const ValueCodec codec = group_codec(3, 16, kDim);
  tq::Random random = test_random(61);
  std::vector<float> x = normal_values(random, 18 * kDim);
  const std::vector<float> undisturbed = decode(codec, encode(codec, x));
  const auto fill = [&](std::size_t row, std::size_t g, float value) {
    std::fill_n(x.begin() + static_cast<std::ptrdiff_t>(row * kDim + g * 16), 16, value);
  };
  fill(2, 0, 0.1f);
  fill(2, 1, -1234.5f);
  fill(2, 2, 0.0f);
  fill(2, 3, 1e30f);
  fill(3, 0, 1e-9f);    // below half a unit of the smallest half
  x[4 * kDim] = 1e-9f;  // a range too small for a scale, beside nothing else
  fill(5, 0, 2.0f);
  x[5 * kDim + 3] = std::nextafter(2.0f, 3.0f);
  x[6 * kDim + 17] = std::numeric_limits<float>::quiet_NaN();
  const EncodedValues values = encode(codec, x);
  const EncodedGroups& encoded = std::get<EncodedGroups>(values);
  const std::vector<float> decoded = decode(codec, values);
  const auto expect_constant = [&](std::size_t row, std::size_t g, float value) {
    CAPTURE(row);
    CAPTURE(g);
    CHECK(encoded.scales[row * 4 + g] == 0);
    const auto begin = decoded.begin() + static_cast<std::ptrdiff_t>(row * kDim + g * 16);
    CHECK(std::all_of(begin, begin + 16, [&](float v) { return v == value; }));
  };
  expect_constant(2, 0, tq::half_to_float(tq::float_to_half(0.1f)));
  expect_constant(2, 1, -1234.0f);  // a tie of two halves: the even one
  expect_constant(2, 2, 0.0f);
  expect_constant(2, 3, 65504.0f);
  expect_constant(3, 0, 0.0f);
  CHECK(std::all_of(decoded.begin() + 5 * kDim, decoded.begin() + 5 * kDim + 16,
                    [](float v) { return std::fabs(v - 2) < 1e-3f; }));
  // Everything outside the group with the NaN, and outside the rows that changed, is as before.
  for (std::size_t i = 0; i < x.size(); ++i) {
    const std::size_t row = i / kDim;
    if (row >= 2 && row <= 5) continue;
    if (i >= 6 * kDim + 16 && i < 6 * kDim + 32) continue;
    REQUIRE(decoded[i] == undisturbed[i]);
  }
}

TEST_CASE("group values of any number of rows") {
  tq::Random random = test_random(62);
  const ValueCodec codec = group_codec(3, 8, 40);
  const std::vector<float> x = normal_values(random, 1500 * 40);
  const std::vector<float> all = decode(codec, encode(codec, x));
  for (const std::size_t rows : {0u, 1u, 15u, 16u, 17u, 1025u}) {
    CAPTURE(rows);
    const std::vector<float> some =
        decode(codec, encode(codec, {x.begin(), x.begin() + static_cast<std::ptrdiff_t>(rows * 40)}));
    CHECK(some.size() == rows * 40);
    CHECK(std::equal(some.begin(), some.end(), all.begin()));
  }
}

TEST_CASE("rotated values are mse keys") {
  tq::Random random = test_random(63);
  const std::vector<float> x = normal_values(random, 33 * 80);
  for (const ScaleRule rule : {ScaleRule::norm, ScaleRule::nc, ScaleRule::ls}) {
    const ValueCodec codec = rotated_codec(3, RotationKind::rht, 80, 9, rule);
    CHECK(codec.head_dim() == 80);
    const tq::KeyConfig key_config{tq::KeyMode::mse, 3, rule, tq::SketchKind::orthogonal};
    const tq::KeyCodec keys(key_config,
                            std::make_shared<const Rotation>(Rotation::make(RotationKind::rht, 80, 9)),
                            nullptr, tq::default_key_tables(key_config, 80));
    tq::EncodedKeys expected;
    keys.encode(x.data(), 33, expected);
    const EncodedValues values = encode(codec, x);
    const tq::EncodedKeys& encoded = std::get<tq::EncodedKeys>(values);
    CHECK(encoded.codes == expected.codes);
    CHECK(encoded.scales == expected.scales);
    std::vector<float> decoded(x.size());
    keys.decode(expected, decoded.data());
    CHECK(decode(codec, values) == decoded);
  }
}

TEST_CASE("a weighted sum is the sum of the decoded values") {
  tq::Random random = test_random(64);
  for (const std::size_t rows : {0u, 1u, 17u, 2500u}) {
    for (const std::size_t queries : {1u, 3u, 4u, 6u}) {
      for (const int d : {40, 128}) {
        CAPTURE(rows);
        CAPTURE(queries);
        CAPTURE(d);
        const auto n = static_cast<std::size_t>(d);
        const std::vector<float> x = normal_values(random, rows * n);
        std::vector<float> weights(queries * rows);
        for (float& weight : weights) weight = static_cast<float>(random.uniform());
        const ValueCodec codecs[] = {group_codec(4, 8, d), rotated_codec(4, RotationKind::rht, d, 3),
                                     rotated_codec(3, RotationKind::qr, d, 3)};
        for (const ValueCodec& codec : codecs) {
          CAPTURE(tq::describe(codec.config()));
          const EncodedValues values = encode(codec, x);
          const std::vector<float> decoded = decode(codec, values);
          std::vector<float> sums(queries * n + 1, -7);
          codec.weighted_sum(weights.data(), queries, values, sums.data());
          CHECK(sums.back() == -7);
          double worst = 0;
          for (std::size_t q = 0; q < queries; ++q) {
            ref::Vector expected(n);
            for (std::size_t t = 0; t < rows; ++t) {
              for (std::size_t j = 0; j < n; ++j) {
                expected[j] +=
                    static_cast<double>(weights[q * rows + t]) * static_cast<double>(decoded[t * n + j]);
              }
            }
            worst = std::max(worst, ref::relative_error(ref::widen({&sums[q * n], n}), expected));
          }
          CHECK(worst < 1e-5);
        }
      }
    }
  }
}

TEST_CASE("group quantisation of Gaussian values: mean cosines") {
  tq::Random random = test_random(65);
  constexpr std::size_t kRows = 20000;
  struct Expected {
    int bits, size;
    double cosine;
  };
  const Expected table[] = {{2, 32, 0.9329}, {2, 16, 0.9522}, {2, 8, 0.9714}, {3, 32, 0.9864},
                            {3, 16, 0.9905}, {4, 32, 0.9970}, {4, 16, 0.9979}};
  for (const int d : {128, 256}) {
    const std::vector<float> x = normal_values(random, kRows * static_cast<std::size_t>(d));
    for (const Expected& expected : table) {
      CAPTURE(d);
      CAPTURE(expected.bits);
      CAPTURE(expected.size);
      const double cosine = mean_cosine(group_codec(expected.bits, expected.size, d), x);
      CHECK(std::fabs(cosine - expected.cosine) < 0.0005);
    }
  }
}

TEST_CASE("rotation and Lloyd-Max of Gaussian values: mean cosines") {
  tq::Random random = test_random(66);
  const std::vector<float> x = normal_values(random, 20000 * 128);
  const double expected[] = {0.9402, 0.9829, 0.9953};
  for (const RotationKind kind : {RotationKind::qr, RotationKind::rht}) {
    for (int bits = 2; bits <= 4; ++bits) {
      CAPTURE(std::string(tq::to_string(kind)));
      CAPTURE(bits);
      const double cosine = mean_cosine(rotated_codec(bits, kind, 128, random.bits64()), x);
      CHECK(std::fabs(cosine - expected[bits - 2]) < 0.001);
      // Near sqrt(1 - MSE), which is above the mean: the root is concave.
      CHECK(std::fabs(cosine - std::sqrt(1 - tq::sphere_mse(tq::sphere_codebook(128, bits), 128))) < 0.001);
    }
  }
  const double nc = mean_cosine(rotated_codec(3, RotationKind::rht, 128, 5, ScaleRule::nc), x);
  CHECK(nc == doctest::Approx(mean_cosine(rotated_codec(3, RotationKind::rht, 128, 5, ScaleRule::norm), x))
                  .epsilon(1e-6));
  CHECK(nc == doctest::Approx(mean_cosine(rotated_codec(3, RotationKind::rht, 128, 5, ScaleRule::ls), x))
                  .epsilon(1e-6));
}

TEST_CASE("a value codec refuses what does not fit, and changes the mode of its output") {
  CHECK_THROWS_AS(group_codec(5, 32, 128), tq::UsageError);
  CHECK_THROWS_AS(group_codec(3, 48, 128), tq::UsageError);
  CHECK_THROWS_AS(rotated_codec(9, RotationKind::rht, 128, 1), tq::UsageError);
  const ValueConfig config{ValueMode::rotated, 3, 32, ScaleRule::nc};
  const auto rotation = std::make_shared<const Rotation>(Rotation::make(RotationKind::rht, 128, 1));
  CHECK_THROWS_AS(ValueCodec(config, 128, rotation, tq::sphere_codebook(128, 4)), tq::InputError);
  CHECK_THROWS_AS(ValueCodec(config, 128, nullptr, tq::sphere_codebook(128, 3)), std::invalid_argument);
  CHECK_THROWS_AS(ValueCodec(config, 64, rotation, tq::sphere_codebook(64, 3)), std::invalid_argument);
  CHECK(tq::default_value_table(group(3, 32), 128) == tq::Codebook());
  CHECK(tq::default_value_table(config, 128) == tq::sphere_codebook(128, 3));

  tq::Random random = test_random(67);
  const std::vector<float> x = normal_values(random, 3 * 128);
  EncodedValues values;
  rotated_codec(3, RotationKind::rht, 128, 1).encode(x.data(), 3, values);
  CHECK(std::holds_alternative<tq::EncodedKeys>(values));
  CHECK(tq::row_count(values) == 3);
  group_codec(3, 32, 128).encode(x.data(), 2, values);
  CHECK(std::holds_alternative<EncodedGroups>(values));
  CHECK(tq::row_count(values) == 2);
}
