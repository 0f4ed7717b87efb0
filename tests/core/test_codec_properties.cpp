#include <doctest/doctest.h>
#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <memory>
#include <numeric>
#include <string>
#include <vector>

#include "core/key_codec.h"
#include "core/value_codec.h"
#include "tests/support/reference.h"
#include "tests/support/test_seed.h"

// What must hold of every codec, whatever the shape and the vectors, hard ones included. Agreement code by
// code with the reference on ordinary vectors is in test_key_codec.cpp and test_value_codec.cpp.

namespace ref = tq::reference;
using tq::EncodedGroups;
using tq::EncodedKeys;
using tq::EncodedValues;
using tq::KeyCodec;
using tq::KeyConfig;
using tq::KeyMode;
using tq::Random;
using tq::Rotation;
using tq::RotationKind;
using tq::ScaleRule;
using tq::Sketch;
using tq::SketchKind;
using tq::ValueCodec;
using tq::ValueConfig;
using tq::ValueMode;
using tq::test::normal_values;
using tq::test::test_random;

namespace {

constexpr double kLargestHalf = 65504;
// A coordinate of a rotated unit vector in float32 against float64.
constexpr double kCoordinateError = 2e-6;

int pick(Random& random, int bound) {
  return static_cast<int>(random.below(static_cast<std::uint32_t>(bound)));
}
double real(float value) { return static_cast<double>(value); }

int random_dim(Random& random, RotationKind kind) {
  for (;;) {
    const int d = 8 * (2 + pick(random, 31));  // 16..256
    if (kind == RotationKind::qr || tq::hadamard_supported(d)) return d;
  }
}

// Finite vectors of every kind that is hard on some codec, of sizes from the smallest denormal to 6e4.
std::vector<float> hard_rows(Random& random, std::size_t rows, std::size_t d) {
  std::vector<float> x = normal_values(random, rows * d);
  const float sizes[] = {1, 1e-2f, 1e2f, 1e-38f, 1e-42f, 1e-7f, 3e-5f, 6e3f};
  for (std::size_t row = 0; row < rows; ++row) {
    const auto begin = x.begin() + static_cast<std::ptrdiff_t>(row * d),
               end = begin + static_cast<std::ptrdiff_t>(d);
    const float size = sizes[random.below(8)];
    const float constant = *begin * size;
    switch (row % 8) {
      case 0:
        std::fill(begin, end, constant);
        break;
      case 1:
        std::fill(begin, end, 0.0f);
        *(begin + pick(random, static_cast<int>(d))) = constant;
        break;
      case 2:  // a few coordinates far above the others
        for (int i = 0; i < 3; ++i) *(begin + pick(random, static_cast<int>(d))) = 6e4f;
        break;
      case 3:  // large and nearly constant
        for (auto value = begin; value != end; ++value) *value = 4096 + 0.25f * *value;
        break;
      case 4:  // sizes from 1e-38 to 6e4 in one vector
        for (auto value = begin; value != end; ++value)
          *value *= std::exp2(static_cast<float>(pick(random, 140)) - 126);
        break;
      default:
        for (auto value = begin; value != end; ++value) *value = std::clamp(*value * size, -6e4f, 6e4f);
    }
  }
  return x;
}

ref::Vector row_of(const std::vector<float>& x, std::size_t row, std::size_t d) {
  return ref::widen({&x[row * d], d});
}

std::vector<int> codes_of(const std::vector<std::uint8_t>& bytes, std::size_t row, std::size_t d, int bits) {
  const std::size_t row_bytes = d * static_cast<std::size_t>(bits) / 8;
  return ref::unpack(std::span(bytes).subspan(row * row_bytes, row_bytes), d, bits);
}

struct Keys {
  std::shared_ptr<const Rotation> rotation;
  std::shared_ptr<const Sketch> sketch;
  KeyCodec codec;
  std::size_t d;

  Keys(const KeyConfig& config, int dim, RotationKind kind, Random& random)
      : rotation(std::make_shared<const Rotation>(Rotation::make(kind, dim, random.bits64()))),
        sketch(config.mode == KeyMode::prod
                   ? std::make_shared<const Sketch>(Sketch::make(config.sketch, dim, random.bits64()))
                   : nullptr),
        codec(config, rotation, sketch, tq::default_key_tables(config, dim)),
        d(static_cast<std::size_t>(dim)) {}

  EncodedKeys encode(const std::vector<float>& x) const {
    EncodedKeys keys;
    codec.encode(x.data(), x.size() / d, keys);
    return keys;
  }
  std::vector<float> decode(const EncodedKeys& keys) const {
    std::vector<float> out(keys.rows * d);
    codec.decode(keys, out.data());
    return out;
  }
};

// Any mode, width, rule, sketch, rotation and dimension.
Keys random_keys(Random& random) {
  KeyConfig config;
  config.mode = static_cast<KeyMode>(pick(random, 2));
  config.bits = config.mode == KeyMode::mse ? 1 + pick(random, 8) : 2 + pick(random, 7);
  config.scale = static_cast<ScaleRule>(pick(random, 3));
  const auto kind = static_cast<RotationKind>(pick(random, 2));
  const int d = random_dim(random, kind);
  config.sketch = tq::hadamard_supported(d) ? static_cast<SketchKind>(pick(random, 2)) : SketchKind::gaussian;
  return Keys(config, d, kind, random);
}

std::string text_of(const Keys& keys) {
  return fmt::format("{} of {}, {}", tq::describe(keys.codec.config()), keys.d,
                     tq::to_string(keys.rotation->kind()));
}

struct Groups {
  int bits, size, d;
  ValueCodec codec;

  Groups(int b, int group_size, int dim)
      : bits(b), size(group_size), d(dim), codec({ValueMode::group, b, group_size, {}}, dim, nullptr, {}) {}

  EncodedGroups encode(const std::vector<float>& x) const {
    EncodedValues values;
    codec.encode(x.data(), x.size() / static_cast<std::size_t>(d), values);
    return std::get<EncodedGroups>(values);
  }
  std::vector<float> decode(const EncodedGroups& groups) const {
    std::vector<float> out(groups.rows * static_cast<std::size_t>(d));
    codec.decode(groups, out.data());
    return out;
  }
};

Groups random_groups(Random& random) {
  const int all_bits[] = {2, 3, 4, 8}, all_sizes[] = {8, 16, 24, 32, 40, 64, 128};
  for (;;) {
    const int d = 8 * (2 + pick(random, 63)), size = all_sizes[pick(random, 7)];
    if (d % size == 0) return Groups(all_bits[pick(random, 4)], size, d);
  }
}

std::string text_of(const Groups& groups) {
  return fmt::format("group{}-gs{} of {}", groups.bits, groups.size, groups.d);
}

std::vector<std::size_t> shuffled(Random& random, std::size_t count) {
  std::vector<std::size_t> order(count);
  std::iota(order.begin(), order.end(), std::size_t{0});
  for (std::size_t i = count; i > 1; --i)
    std::swap(order[i - 1], order[random.below(static_cast<std::uint32_t>(i))]);
  return order;
}

// Pieces of `size` numbers, piece i from order[i].
std::vector<float> reordered(const std::vector<float>& x, const std::vector<std::size_t>& order,
                             std::size_t size) {
  std::vector<float> out;
  for (std::size_t begin = 0; begin < x.size(); begin += order.size() * size) {
    for (const std::size_t from : order) {
      const auto piece = x.begin() + static_cast<std::ptrdiff_t>(begin + from * size);
      out.insert(out.end(), piece, piece + static_cast<std::ptrdiff_t>(size));
    }
  }
  return out;
}

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](float x, float y) {
    return std::bit_cast<std::uint32_t>(x) == std::bit_cast<std::uint32_t>(y);
  });
}

}  // namespace

TEST_CASE("properties: a group value is at most half a step from what was stored") {
  Random random = test_random(140);
  for (int repeat = 0; repeat < 60; ++repeat) {
    const Groups groups = random_groups(random);
    INFO(text_of(groups));
    constexpr std::size_t kRows = 19;
    const auto d = static_cast<std::size_t>(groups.d), size = static_cast<std::size_t>(groups.size);
    const std::vector<float> x = hard_rows(random, kRows, d);
    const EncodedGroups encoded = groups.encode(x);
    const std::vector<float> decoded = groups.decode(encoded);
    const double last = (1 << groups.bits) - 1;
    int bad_zeros = 0, bad_scales = 0, bad_codes = 0, far = 0;
    for (std::size_t row = 0; row < kRows; ++row) {
      const std::vector<int> codes = codes_of(encoded.codes, row, d, groups.bits);
      for (std::size_t g = 0; g < d / size; ++g) {
        const float* source = &x[row * d + g * size];
        const auto [low, high] = std::minmax_element(source, source + size);
        const double step = (real(*high) - real(*low)) / last;
        const double zero = ref::from_half(encoded.zeros[row * (d / size) + g]),
                     scale = ref::from_half(encoded.scales[row * (d / size) + g]);
        // Range and quotient are rounded to float32 before they become binary16.
        bad_zeros += std::fabs(zero - real(*low)) > ref::half_rounding(real(*low));
        bad_scales += std::fabs(scale - step) > ref::half_rounding(step) * 1.001 + 1e-6 * step;
        // Beyond half a step: what rounding zero and scale to binary16 has moved the ends of the range.
        const double bound = scale / 2 + ref::half_rounding(real(*low)) +
                             last * (ref::half_rounding(step) * 1.001 + 1e-6 * step);
        for (std::size_t j = 0; j < size; ++j) {
          const double v = real(source[j]), back = real(decoded[row * d + g * size + j]);
          // float32 arithmetic in the decoder, and in the encoder's quotient.
          const double slack = 2e-7 * (std::fabs(zero) + last * scale);
          far += !(std::fabs(v - back) <= bound + slack);
          const double nearest = std::clamp(scale == 0 ? 0 : std::nearbyint((v - zero) / scale), 0.0, last);
          bad_codes += std::fabs(v - (zero + codes[g * size + j] * scale)) >
                       std::fabs(v - (zero + nearest * scale)) + slack;
          bad_codes += !(std::fabs(back - (zero + codes[g * size + j] * scale)) <= slack);
        }
      }
    }
    CHECK(bad_zeros == 0);
    CHECK(bad_scales == 0);
    CHECK(bad_codes == 0);
    CHECK(far == 0);
  }
}

TEST_CASE(
    "properties: groups, rows and the coordinates of a group can change places; powers of two carry over") {
  Random random = test_random(141);
  for (int repeat = 0; repeat < 30; ++repeat) {
    const Groups groups = random_groups(random);
    INFO(text_of(groups));
    constexpr std::size_t kRows = 21;
    const auto d = static_cast<std::size_t>(groups.d), size = static_cast<std::size_t>(groups.size);
    const std::vector<float> x = hard_rows(random, kRows, d), out = groups.decode(groups.encode(x));
    const std::vector<std::size_t> rows = shuffled(random, kRows), in_row = shuffled(random, d / size),
                                   in_group = shuffled(random, size);
    CHECK(same_bits(groups.decode(groups.encode(reordered(x, rows, d))), reordered(out, rows, d)));
    CHECK(same_bits(groups.decode(groups.encode(reordered(x, in_row, size))), reordered(out, in_row, size)));
    CHECK(same_bits(groups.decode(groups.encode(reordered(x, in_group, 1))), reordered(out, in_group, 1)));
    // Where no zero or scale is a denormal half or overflows.
    std::vector<float> moderate = normal_values(random, kRows * d), larger = moderate;
    for (float& value : larger) value *= 16;
    const EncodedGroups a = groups.encode(moderate), b = groups.encode(larger);
    const auto normal_half = [](std::uint16_t bits) { return (bits & 0x7c00) != 0; };
    if (!std::all_of(a.scales.begin(), a.scales.end(), normal_half)) continue;
    if (!std::all_of(a.zeros.begin(), a.zeros.end(), normal_half)) continue;
    CHECK(a.codes == b.codes);
  }
}

TEST_CASE("properties: a rotated coordinate lies in the cell that was stored") {
  Random random = test_random(142);
  for (int repeat = 0; repeat < 24; ++repeat) {
    const Keys keys = random_keys(random);
    INFO(text_of(keys));
    const KeyConfig config = keys.codec.config();
    constexpr std::size_t kRows = 19;
    const std::size_t d = keys.d;
    const tq::Codebook& book = keys.codec.tables().codebook;
    const ref::Matrix dense = ref::dense(*keys.rotation);
    const std::vector<float> x = hard_rows(random, kRows, d);
    const EncodedKeys encoded = keys.encode(x);
    const std::vector<float> decoded = keys.decode(encoded);
    int outside = 0, bad_scales = 0, bad_residuals = 0;
    double worst = 0;
    for (std::size_t row = 0; row < kRows; ++row) {
      const ref::Vector exact = row_of(x, row, d), y = ref::rotated_direction(dense, exact);
      const double n = ref::norm(exact);
      const std::vector<int> codes = codes_of(encoded.codes, row, d, book.bits);
      const ref::Vector c = ref::centroids_of(book, codes);
      double residual = 0;
      for (std::size_t j = 0; j < d; ++j) {
        const auto cell = static_cast<std::size_t>(codes[j]);
        const bool first = cell == 0, last = cell + 2 == book.boundaries.size();
        outside += !((first || y[j] > book.boundaries[cell] - kCoordinateError) &&
                     (last || y[j] <= book.boundaries[cell + 1] + kCoordinateError));
        residual += (y[j] - c[j]) * (y[j] - c[j]);
      }
      const ScaleRule rule = config.mode == KeyMode::prod ? ScaleRule::norm : config.scale;
      const double scale = std::min(ref::scale_of(rule, n, y, c), kLargestHalf);
      const double stored = ref::from_half(encoded.scales[row]);
      bad_scales += !(std::fabs(stored - scale) <= ref::half_rounding(scale) * 1.001 + 3e-6 * scale);
      ref::Vector expected;
      if (config.mode == KeyMode::prod) {
        const double r = std::min(n * std::sqrt(residual), kLargestHalf),
                     stored_r = ref::from_half(encoded.residual_norms[row]);
        bad_residuals += !(std::fabs(stored_r - r) <= ref::half_rounding(r) * 1.001 + 3e-6 * n);
        std::vector<int> signs = codes_of(encoded.signs, row, d, 1);
        for (int& sign : signs) sign = 2 * sign - 1;
        expected = ref::decode_prod(dense, ref::dense(*keys.sketch), book, codes, stored, signs, stored_r,
                                    keys.codec.tables().qjl_scale);
      } else {
        expected = ref::decode_mse(dense, book, codes, stored);
      }
      worst = std::max(worst, ref::relative_error(row_of(decoded, row, d), expected));
    }
    CHECK(outside == 0);
    CHECK(bad_scales == 0);
    CHECK(bad_residuals == 0);
    CHECK(worst < 1e-5);
  }
}

TEST_CASE("properties: nc keeps the length, and no scale is nearer than that of ls") {
  Random random = test_random(143);
  for (int repeat = 0; repeat < 12; ++repeat) {
    const int bits = 1 + pick(random, 8);
    const auto kind = static_cast<RotationKind>(pick(random, 2));
    const int d = random_dim(random, kind);
    constexpr std::size_t kRows = 20;
    const std::vector<float> x = normal_values(random, kRows * static_cast<std::size_t>(d), 10);
    const std::uint64_t seed = random.bits64();
    const auto rotation = std::make_shared<const Rotation>(Rotation::make(kind, d, seed));
    std::vector<ref::Vector> errors(3);
    for (const ScaleRule rule : {ScaleRule::norm, ScaleRule::nc, ScaleRule::ls}) {
      const KeyConfig config{KeyMode::mse, bits, rule, {}};
      INFO(tq::describe(config) << " of " << d);
      const KeyCodec codec(config, rotation, nullptr, tq::default_key_tables(config, d));
      EncodedKeys keys;
      codec.encode(x.data(), kRows, keys);
      std::vector<float> out(x.size());
      codec.decode(keys, out.data());
      for (std::size_t row = 0; row < kRows; ++row) {
        const ref::Vector exact = row_of(x, row, static_cast<std::size_t>(d)),
                          back = row_of(out, row, static_cast<std::size_t>(d));
        errors[static_cast<std::size_t>(rule)].push_back(ref::relative_error(back, exact));
        // 2^-11: half a unit in the last place of a half.
        if (rule == ScaleRule::nc) CHECK(std::fabs(ref::norm(back) / ref::norm(exact) - 1) < 0x1.02p-11);
      }
    }
    const ref::Vector& least = errors[static_cast<std::size_t>(ScaleRule::ls)];
    for (const ref::Vector& others : errors) {
      // The scale's rounding moves a least-squares error in second order: by the square of 2^-11.
      for (std::size_t row = 0; row < kRows; ++row)
        CHECK(least[row] * least[row] <= others[row] * others[row] + 0x1p-21);
    }
  }
}

TEST_CASE("properties: -x decodes to the negative, rows can change places, powers of two carry over") {
  Random random = test_random(144);
  int compared = 0;
  for (int repeat = 0; repeat < 40; ++repeat) {
    const Keys keys = random_keys(random);
    INFO(text_of(keys));
    constexpr std::size_t kRows = 21;
    const std::size_t d = keys.d;
    const int bits = keys.codec.tables().codebook.bits;
    const std::vector<float> x = normal_values(random, kRows * d);
    std::vector<float> negative = x, larger = x;
    for (float& value : negative) value = -value;
    for (float& value : larger) value *= 64;
    const EncodedKeys encoded = keys.encode(x), of_negative = keys.encode(negative),
                      of_larger = keys.encode(larger);
    const std::vector<float> out = keys.decode(encoded), negative_out = keys.decode(of_negative);
    CHECK(of_larger.codes == encoded.codes);
    CHECK(of_larger.signs == encoded.signs);
    for (std::size_t row = 0; row < kRows; ++row) {
      CHECK(ref::from_half(of_larger.scales[row]) == 64 * ref::from_half(encoded.scales[row]));
      // A tie goes down on both sides; float32 has some on 255 boundaries.
      const std::vector<int> codes = codes_of(encoded.codes, row, d, bits),
                             mirrored = codes_of(of_negative.codes, row, d, bits);
      bool tie = false;
      for (std::size_t j = 0; j < d; ++j) tie |= codes[j] + mirrored[j] != (1 << bits) - 1;
      for (std::size_t i = row * d / 8; i < (row + 1) * d / 8 && !encoded.signs.empty(); ++i)
        tie |= (encoded.signs[i] ^ of_negative.signs[i]) != 0xff;
      if (tie) continue;
      ++compared;
      CHECK(of_negative.scales[row] == encoded.scales[row]);
      if (!encoded.signs.empty()) CHECK(of_negative.residual_norms[row] == encoded.residual_norms[row]);
      bool opposite = true;
      for (std::size_t j = row * d; j < (row + 1) * d; ++j) opposite &= negative_out[j] == -out[j];
      CHECK(opposite);
    }
    const std::vector<float> hard = hard_rows(random, kRows, d);
    const std::vector<std::size_t> order = shuffled(random, kRows);
    CHECK(same_bits(keys.decode(keys.encode(reordered(hard, order, d))),
                    reordered(keys.decode(keys.encode(hard)), order, d)));
  }
  CHECK(compared > 40 * 21 * 9 / 10);
}

TEST_CASE("properties: a NaN or an infinity stays in its own row, and in its own group") {
  Random random = test_random(145);
  const float spoilers[] = {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(),
                            -std::numeric_limits<float>::infinity()};
  for (int repeat = 0; repeat < 20; ++repeat) {
    constexpr std::size_t kRows = 35;
    const float spoiler = spoilers[pick(random, 3)];
    CAPTURE(spoiler);
    const auto check = [&](const auto& codec, std::size_t d, std::size_t spoiled) {
      const std::vector<float> x = hard_rows(random, kRows, d);
      std::vector<float> with = x;
      const std::size_t at = random.below(static_cast<std::uint32_t>(x.size()));
      with[at] = spoiler;
      const std::vector<float> before = codec.decode(codec.encode(x)),
                               after = codec.decode(codec.encode(with));
      bool same = true, nan = true;
      for (std::size_t i = 0; i < x.size(); ++i) {
        if (i / spoiled == at / spoiled) {
          nan &= std::isnan(after[i]);
        } else {
          same &= before[i] == after[i];
        }
      }
      CHECK(same);
      return nan;
    };
    const Keys keys = random_keys(random);
    const Groups groups = random_groups(random);
    INFO(text_of(keys) << "; " << text_of(groups));
    const bool all_nan = check(keys, keys.d, keys.d);
    if (std::isnan(spoiler)) CHECK(all_nan);
    check(groups, static_cast<std::size_t>(groups.d), static_cast<std::size_t>(groups.size));
  }
}

// E <q, k^> = <q, k> over Gaussian sketches (arXiv:2406.03482, Lemma 3.2), for any key and query. Queries
// lean towards the residuals, where a wrong alpha shows.
TEST_CASE("properties: inner products of prod keys are unbiased") {
  Random random = test_random(146);
  for (const int bits : {2, 4}) {
    for (const int d : {16, 40}) {
      INFO(bits << " bits, d = " << d);
      const KeyConfig config{KeyMode::prod, bits, ScaleRule::norm, SketchKind::gaussian},
          table{KeyMode::mse, bits - 1, ScaleRule::norm, {}};
      const auto rotation =
          std::make_shared<const Rotation>(Rotation::make(RotationKind::rht, d, random.bits64()));
      const KeyCodec without_signs(table, rotation, nullptr, tq::default_key_tables(table, d));
      const tq::KeyTables tables = tq::default_key_tables(config, d);
      constexpr int kSketches = 1500;
      constexpr std::size_t kRows = 16;
      const auto n = static_cast<std::size_t>(d);
      double sum = 0, squares = 0, lean = 0;
      for (int i = 0; i < kSketches; ++i) {
        const auto sketch = std::make_shared<const Sketch>(Sketch::make(config.sketch, d, random.bits64()));
        const KeyCodec codec(config, rotation, sketch, tables);
        const std::vector<float> x = normal_values(random, kRows * n);
        EncodedKeys keys;
        without_signs.encode(x.data(), kRows, keys);
        std::vector<float> residuals(x.size());
        without_signs.decode(keys, residuals.data());
        for (std::size_t j = 0; j < x.size(); ++j) residuals[j] = x[j] - residuals[j];
        std::vector<float> queries = residuals;
        for (std::size_t j = 0; j < x.size(); ++j)
          queries[j] += 0.5f * residuals[(j * 7 + 5) % x.size()];  // of another coordinate: any direction
        codec.encode(x.data(), kRows, keys);
        std::vector<float> scores(kRows * kRows);
        codec.scores(codec.prepare(queries.data(), kRows), keys, scores.data());
        double error = 0;  // rows share the sketch: only their mean is independent of the other sketches'
        for (std::size_t row = 0; row < kRows; ++row) {
          const ref::Vector query = row_of(queries, row, n), residual = row_of(residuals, row, n);
          const double size = ref::norm(query) * ref::norm(residual);
          error += (real(scores[row * kRows + row]) - ref::dot(query, row_of(x, row, n))) / size / kRows;
          lean += ref::dot(query, residual) / size / kRows / kSketches;
        }
        sum += error;
        squares += error * error;
      }
      const double mean = sum / kSketches,
                   standard_error = std::sqrt((squares / kSketches - mean * mean) / kSketches);
      CAPTURE(mean);
      CAPTURE(standard_error);
      CHECK(std::fabs(mean) < 5 * standard_error);
      // Small enough to see an alpha that is 3 % off.
      CHECK(5 * standard_error < 0.03 * lean);
    }
  }
}

TEST_CASE("properties: one bit more, less error") {
  Random random = test_random(147);
  constexpr std::size_t kRows = 60;
  const auto mean_error = [&](const auto& codec, const std::vector<float>& x, std::size_t d) {
    const std::vector<float> out = codec.decode(codec.encode(x));
    double sum = 0;
    for (std::size_t row = 0; row < kRows; ++row)
      sum += std::pow(ref::relative_error(row_of(out, row, d), row_of(x, row, d)), 2);
    return sum / kRows;
  };
  for (int repeat = 0; repeat < 6; ++repeat) {
    const auto kind = static_cast<RotationKind>(pick(random, 2));
    const int d = std::max(32, random_dim(random, kind));
    const auto n = static_cast<std::size_t>(d);
    std::vector<float> x = normal_values(random, kRows * n);
    for (std::size_t i = 0; i < x.size(); i += 7) x[i] *= 5;  // heavy tails
    for (const KeyMode mode : {KeyMode::mse, KeyMode::prod}) {
      const auto rule = static_cast<ScaleRule>(pick(random, 3));
      const Random seeds = random;
      double previous = std::numeric_limits<double>::infinity();
      for (int bits = mode == KeyMode::mse ? 1 : 2; bits <= 8; ++bits) {
        const KeyConfig config{mode, bits, rule, SketchKind::gaussian};
        INFO(tq::describe(config) << " of " << d);
        random = seeds;  // the same rotation and sketch for every width
        const double error = mean_error(Keys(config, d, kind, random), x, n);
        CHECK(error < 0.7 * previous);  // a quarter, in the limit of many bits
        previous = error;
      }
    }
    double previous = std::numeric_limits<double>::infinity();
    for (const int bits : {2, 3, 4, 8}) {
      INFO(bits << " bits of " << d);
      const double error = mean_error(Groups(bits, 8, d), x, n);
      CHECK(error < 0.7 * previous);
      previous = error;
    }
  }
}
