#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "core/error.h"
#include "core/half.h"
#include "core/key_codec.h"
#include "core/packing.h"
#include "tests/support/reference.h"
#include "tests/support/test_seed.h"

namespace ref = tq::reference;
using tq::EncodedKeys;
using tq::KeyCodec;
using tq::KeyConfig;
using tq::KeyMode;
using tq::KeyTables;
using tq::Rotation;
using tq::RotationKind;
using tq::ScaleRule;
using tq::Sketch;
using tq::SketchKind;
using tq::test::normal_values;
using tq::test::test_random;

namespace {

// float32 against float64: a coordinate of a unit vector is known to about this much.
constexpr double kCoordinateError = 1e-6;
// Sums of d products, of up to 1024: seen to be off by 1.8e-6.
constexpr double kSumError = 4e-6;

// Keys, and what every codec of the same rotation has in common: y = Pi x / ||x|| in float64.
struct Problem {
  std::size_t d, rows;
  std::shared_ptr<const Rotation> rotation;
  ref::Matrix dense;
  std::vector<float> x, queries;
  std::vector<ref::Vector> y;
  std::vector<double> norms;

  static constexpr std::size_t kQueries = 3;

  Problem(RotationKind kind, int head_dim, std::size_t row_count, tq::Random& random)
      : d(static_cast<std::size_t>(head_dim)),
        rows(row_count),
        rotation(std::make_shared<const Rotation>(Rotation::make(kind, head_dim, random.bits64()))),
        dense(ref::dense(*rotation)),
        x(normal_values(random, rows * d)),
        queries(normal_values(random, kQueries * d)) {
    for (std::size_t t = 0; t < rows; ++t) {
      const float size = std::exp2(static_cast<float>(random.below(12)) - 6);
      for (std::size_t j = 0; j < d; ++j) x[t * d + j] *= size;
      y.push_back(ref::rotated_direction(dense, row(t)));
      norms.push_back(ref::norm(row(t)));
    }
  }
  ref::Vector row(std::size_t t) const { return ref::widen({&x[t * d], d}); }
  ref::Vector query(std::size_t q) const { return ref::widen({&queries[q * d], d}); }
};

std::vector<int> codes_of_row(const std::vector<std::uint8_t>& bytes, std::size_t t, std::size_t d,
                              int bits) {
  const std::size_t row_bytes = bytes.empty() ? 0 : d * static_cast<std::size_t>(bits) / 8;
  return ref::unpack(std::span(bytes).subspan(t * row_bytes, row_bytes), d, bits);
}

// +1 and -1 of a row's sign bits.
std::vector<int> signs_of_row(const EncodedKeys& keys, std::size_t t, std::size_t d) {
  std::vector<int> signs = codes_of_row(keys.signs, t, d, 1);
  for (int& sign : signs) sign = sign == 1 ? 1 : -1;
  return signs;
}

// Whether a stored half is the rounding of a scale that float32 arithmetic knows to `error`.
bool is_rounding(std::uint16_t stored, double exact, double error) {
  return std::fabs(ref::from_half(stored) - exact) <= ref::half_rounding(exact) * 1.001 + error;
}

struct Mistakes {
  std::size_t codes = 0, bytes = 0, scales = 0, signs = 0, residual_norms = 0;
  std::size_t near_boundary = 0;  // codes that differ within the error of float32: no mistakes
  double decode = 0, score = 0;   // worst relative errors
  double score_by_reference = 0;
};

void check_encoding(const Problem& p, const KeyCodec& codec, const ref::Matrix* sketch,
                    const EncodedKeys& keys, Mistakes& m) {
  const KeyConfig config = codec.config();
  const int bits = config.table_bits();
  const tq::Codebook& book = codec.tables().codebook;
  for (std::size_t t = 0; t < p.rows; ++t) {
    const std::vector<int> codes = codes_of_row(keys.codes, t, p.d, bits);
    for (std::size_t j = 0; j < p.d; ++j) {
      if (codes[j] == ref::cell(book, p.y[t][j])) continue;
      (ref::distance_to_boundary(book, p.y[t][j]) < kCoordinateError ? m.near_boundary : m.codes) += 1;
    }
    const std::vector<std::uint8_t> bytes = ref::pack(codes, bits);
    m.bytes += !std::equal(bytes.begin(), bytes.end(),
                           keys.codes.begin() + static_cast<std::ptrdiff_t>(t * bytes.size()));
    const ref::Vector c = ref::centroids_of(book, codes);
    const ScaleRule rule = config.mode == KeyMode::prod ? ScaleRule::norm : config.scale;
    const double scale = ref::scale_of(rule, p.norms[t], p.y[t], c);
    m.scales += !is_rounding(keys.scales[t], scale, kSumError * scale);
    if (config.mode == KeyMode::mse) continue;
    ref::Vector r(p.d);
    for (std::size_t j = 0; j < p.d; ++j) r[j] = p.y[t][j] - c[j];
    // r = y - c loses what y had no digits for: the error is relative to ||y|| = 1, not to ||r||.
    m.residual_norms +=
        !is_rounding(keys.residual_norms[t], p.norms[t] * ref::norm(r), kSumError * p.norms[t]);
    const ref::Vector z = ref::multiply(*sketch, r);
    const std::vector<int> signs = signs_of_row(keys, t, p.d);
    const double uncertain = kCoordinateError * std::sqrt(static_cast<double>(p.d));
    for (std::size_t j = 0; j < p.d; ++j) {
      if (signs[j] != (z[j] > 0 ? 1 : -1)) (std::fabs(z[j]) < uncertain ? m.near_boundary : m.signs) += 1;
    }
  }
}

void check_decoding(const Problem& p, const KeyCodec& codec, const ref::Matrix* sketch,
                    const EncodedKeys& keys, Mistakes& m) {
  const tq::KeyTables& tables = codec.tables();
  std::vector<float> decoded(p.rows * p.d), scores(Problem::kQueries * p.rows);
  codec.decode(keys, decoded.data());
  codec.scores(codec.prepare(p.queries.data(), Problem::kQueries), keys, scores.data());
  const std::size_t step = p.rows / 6 + 1;  // the dense maps of every row would take too long
  for (std::size_t t = 0; t < p.rows; ++t) {
    const ref::Vector key = ref::widen({&decoded[t * p.d], p.d});
    ref::Vector expected = key;
    if (t % step == 0) {
      const std::vector<int> codes = codes_of_row(keys.codes, t, p.d, tables.codebook.bits);
      const double scale = ref::from_half(keys.scales[t]);
      expected =
          sketch == nullptr
              ? ref::decode_mse(p.dense, tables.codebook, codes, scale)
              : ref::decode_prod(p.dense, *sketch, tables.codebook, codes, scale, signs_of_row(keys, t, p.d),
                                 ref::from_half(keys.residual_norms[t]), tables.qjl_scale);
      m.decode = std::max(m.decode, ref::relative_error(key, expected));
    }
    for (std::size_t q = 0; q < Problem::kQueries; ++q) {
      const ref::Vector query = p.query(q);
      const double size = ref::norm(query) * ref::norm(key),
                   score = static_cast<double>(scores[q * p.rows + t]);
      m.score = std::max(m.score, std::fabs(score - ref::dot(query, key)) / size);
      m.score_by_reference =
          std::max(m.score_by_reference, std::fabs(score - ref::dot(query, expected)) / size);
    }
  }
}

Mistakes compare_with_reference(const Problem& p, const KeyConfig& config,
                                std::shared_ptr<const Sketch> sketch, const ref::Matrix* dense_sketch) {
  const KeyCodec codec(config, p.rotation, std::move(sketch),
                       tq::default_key_tables(config, static_cast<int>(p.d)));
  EncodedKeys keys;
  codec.encode(p.x.data(), p.rows, keys);
  Mistakes m;
  check_encoding(p, codec, dense_sketch, keys, m);
  check_decoding(p, codec, dense_sketch, keys, m);
  return m;
}

void check(const Mistakes& m, const Problem& p) {
  CHECK(m.codes == 0);
  CHECK(m.bytes == 0);
  CHECK(m.scales == 0);
  CHECK(m.signs == 0);
  CHECK(m.residual_norms == 0);
  CHECK(m.decode < 1e-5);
  CHECK(m.score < 1e-5);
  CHECK(m.score_by_reference < 1e-5);
  // About one coordinate in 10^4 lies that close to one of 255 boundaries.
  CHECK(m.near_boundary <= 3 + p.rows * p.d / 500);
}

struct Shape {
  RotationKind kind;
  int d;
  std::size_t rows;
};

// Dimensions with a Sylvester, one Paley and two Paley factors, and dense ones; every tail length of a tile.
const Shape kShapes[] = {
    {RotationKind::rht, 16, 100}, {RotationKind::rht, 40, 97},   {RotationKind::rht, 64, 50},
    {RotationKind::rht, 80, 50},  {RotationKind::rht, 96, 50},   {RotationKind::rht, 128, 50},
    {RotationKind::rht, 192, 33}, {RotationKind::rht, 256, 33},  {RotationKind::rht, 400, 17},
    {RotationKind::rht, 576, 17}, {RotationKind::rht, 1024, 17}, {RotationKind::qr, 24, 100},
    {RotationKind::qr, 64, 50},   {RotationKind::qr, 88, 50},    {RotationKind::qr, 128, 50},
    {RotationKind::qr, 344, 17},
};

const ScaleRule kRules[] = {ScaleRule::norm, ScaleRule::nc, ScaleRule::ls};

struct SmallCodec {
  std::shared_ptr<const Rotation> rotation =
      std::make_shared<const Rotation>(Rotation::make(RotationKind::rht, 64, 1));
  std::shared_ptr<const Sketch> sketch =
      std::make_shared<const Sketch>(Sketch::make(SketchKind::orthogonal, 64, 1));
  KeyConfig mse{KeyMode::mse, 3, ScaleRule::nc, SketchKind::orthogonal};
  KeyConfig prod{KeyMode::prod, 3, ScaleRule::norm, SketchKind::orthogonal};
};

}  // namespace

TEST_CASE("mse keys agree with the reference for every shape, width and scale rule") {
  tq::Random random = test_random(40);
  std::size_t near_boundary = 0;
  for (const Shape& shape : kShapes) {
    const Problem p(shape.kind, shape.d, shape.rows, random);
    for (int bits = 1; bits <= 8; ++bits) {
      for (const ScaleRule rule : kRules) {
        const KeyConfig config{KeyMode::mse, bits, rule, SketchKind::orthogonal};
        INFO("d = " << shape.d << ", " << std::string(tq::to_string(shape.kind)) << ", "
                    << tq::describe(config));
        const Mistakes m = compare_with_reference(p, config, nullptr, nullptr);
        check(m, p);
        near_boundary += m.near_boundary;
      }
    }
  }
  MESSAGE("codes that differ within 1e-6 of a boundary: " << near_boundary);
}

TEST_CASE("prod keys agree with the reference for every shape, width and sketch") {
  tq::Random random = test_random(41);
  for (const Shape& shape : kShapes) {
    const Problem p(shape.kind, shape.d, shape.rows, random);
    for (const SketchKind kind : {SketchKind::gaussian, SketchKind::orthogonal}) {
      if (kind == SketchKind::orthogonal && !tq::hadamard_supported(shape.d)) continue;
      const auto sketch = std::make_shared<const Sketch>(Sketch::make(kind, shape.d, random.bits64()));
      const ref::Matrix dense_sketch = ref::dense(*sketch);
      for (int bits = 2; bits <= 8; bits += shape.d > 256 ? 3 : 1) {
        const KeyConfig config{KeyMode::prod, bits, ScaleRule::norm, kind};
        INFO("d = " << shape.d << ", " << std::string(tq::to_string(shape.kind)) << ", "
                    << tq::describe(config));
        check(compare_with_reference(p, config, sketch, &dense_sketch), p);
      }
    }
  }
}

TEST_CASE("rows do not depend on how many there are") {
  tq::Random random = test_random(42);
  for (const int d : {40, 64, 128}) {
    const Problem p(RotationKind::rht, d, 1500, random);
    const auto sketch =
        std::make_shared<const Sketch>(Sketch::make(SketchKind::orthogonal, d, random.bits64()));
    const ref::Matrix dense_sketch = ref::dense(*sketch);
    for (const KeyMode mode : {KeyMode::mse, KeyMode::prod}) {
      const KeyConfig config{mode, 3, ScaleRule::nc, SketchKind::orthogonal};
      INFO("d = " << d << ", " << tq::describe(config));
      const bool prod = mode == KeyMode::prod;
      check(compare_with_reference(p, config, sketch, prod ? &dense_sketch : nullptr), p);

      const KeyCodec codec(config, p.rotation, sketch, tq::default_key_tables(config, d));
      const tq::PreparedQueries queries = codec.prepare(p.queries.data(), Problem::kQueries);
      EncodedKeys all;
      codec.encode(p.x.data(), p.rows, all);
      std::vector<float> all_decoded(p.rows * p.d), all_scores(Problem::kQueries * p.rows);
      codec.decode(all, all_decoded.data());
      codec.scores(queries, all, all_scores.data());
      for (const std::size_t rows : {0u, 1u, 15u, 16u, 17u, 1023u, 1025u}) {
        CAPTURE(rows);
        EncodedKeys some = all;  // encode() must shrink what it is given
        codec.encode(p.x.data(), rows, some);
        CHECK(some.rows == rows);
        REQUIRE(some.codes.size() == rows * p.d * static_cast<std::size_t>(config.table_bits()) / 8);
        REQUIRE(some.scales.size() == rows);
        REQUIRE(some.signs.size() == (prod ? rows * p.d / 8 : 0));
        REQUIRE(some.residual_norms.size() == (prod ? rows : 0));
        CHECK(std::equal(some.codes.begin(), some.codes.end(), all.codes.begin()));
        CHECK(std::equal(some.scales.begin(), some.scales.end(), all.scales.begin()));
        CHECK(std::equal(some.signs.begin(), some.signs.end(), all.signs.begin()));
        CHECK(std::equal(some.residual_norms.begin(), some.residual_norms.end(), all.residual_norms.begin()));
        std::vector<float> decoded(rows * p.d + 1, -7), scores(Problem::kQueries * rows + 1, -7);
        codec.decode(some, decoded.data());
        codec.scores(queries, some, scores.data());
        CHECK(decoded.back() == -7);
        CHECK(scores.back() == -7);
        CHECK(std::equal(decoded.begin(), decoded.end() - 1, all_decoded.begin()));
        for (std::size_t q = 0; q < Problem::kQueries; ++q) {
          const auto begin = scores.begin() + static_cast<std::ptrdiff_t>(q * rows);
          CHECK(std::equal(begin, begin + static_cast<std::ptrdiff_t>(rows),
                           all_scores.begin() + static_cast<std::ptrdiff_t>(q * p.rows)));
        }
      }
      std::vector<float> part(22 * p.d);
      codec.decode_rows(all, 13, 35, false, part.data());
      CHECK(
          std::equal(part.begin(), part.end(), all_decoded.begin() + static_cast<std::ptrdiff_t>(13 * p.d)));
    }
  }
}

TEST_CASE("rows decoded in the rotated frame are the rotation of the decoded rows") {
  tq::Random random = test_random(43);
  const Problem p(RotationKind::rht, 96, 37, random);
  const auto sketch =
      std::make_shared<const Sketch>(Sketch::make(SketchKind::orthogonal, 96, random.bits64()));
  for (const KeyMode mode : {KeyMode::mse, KeyMode::prod}) {
    const KeyConfig config{mode, 4, ScaleRule::nc, SketchKind::orthogonal};
    const KeyCodec codec(config, p.rotation, sketch, tq::default_key_tables(config, 96));
    EncodedKeys keys;
    codec.encode(p.x.data(), p.rows, keys);
    std::vector<float> decoded(p.rows * p.d), rotated(p.rows * p.d);
    codec.decode(keys, decoded.data());
    codec.decode_rows(keys, 0, p.rows, true, rotated.data());
    for (std::size_t t = 0; t < p.rows; ++t) {
      const ref::Vector expected = ref::multiply(p.dense, ref::widen({&decoded[t * p.d], p.d}));
      CHECK(ref::relative_error(ref::widen({&rotated[t * p.d], p.d}), expected) < 1e-5);
    }
  }
}

TEST_CASE("any number of queries") {
  tq::Random random = test_random(44);
  const SmallCodec small;
  const KeyCodec codec(small.prod, small.rotation, small.sketch, tq::default_key_tables(small.prod, 64));
  const std::vector<float> x = normal_values(random, 37 * 64), queries = normal_values(random, 21 * 64);
  EncodedKeys keys;
  codec.encode(x.data(), 37, keys);
  std::vector<float> all(21 * 37);
  codec.scores(codec.prepare(queries.data(), 21), keys, all.data());
  for (const std::size_t count : {0u, 1u, 3u, 4u, 5u, 8u, 9u, 20u}) {
    CAPTURE(count);
    std::vector<float> some(count * 37 + 1, -7);
    codec.scores(codec.prepare(queries.data(), count), keys, some.data());
    CHECK(std::equal(some.begin(), some.end() - 1, all.begin()));
    CHECK(some.back() == -7);
  }
}

TEST_CASE("extreme rows are encoded well and disturb no other row") {
  tq::Random random = test_random(45);
  constexpr std::size_t kDim = 64, kRows = 40;
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN(),
                  kInfinity = std::numeric_limits<float>::infinity();
  const SmallCodec small;
  const std::vector<float> plain = normal_values(random, kRows * kDim);
  for (const KeyConfig& config :
       {small.mse, small.prod, KeyConfig{KeyMode::mse, 8, ScaleRule::norm, SketchKind::orthogonal},
        KeyConfig{KeyMode::mse, 2, ScaleRule::ls, SketchKind::orthogonal}}) {
    CAPTURE(tq::describe(config));
    const bool prod = config.mode == KeyMode::prod;
    const KeyCodec codec(config, small.rotation, small.sketch, tq::default_key_tables(config, kDim));
    EncodedKeys before;
    codec.encode(plain.data(), kRows, before);
    std::vector<float> decoded_before(kRows * kDim);
    codec.decode(before, decoded_before.data());

    std::vector<float> x = plain;
    const auto fill = [&](std::size_t row, float value) {
      std::fill_n(x.begin() + static_cast<std::ptrdiff_t>(row * kDim), kDim, value);
    };
    fill(3, 0.0f);
    fill(5, -0.0f);
    fill(7, 0.0f);
    x[7 * kDim + 11] = 1;
    fill(9, 0.0f);
    x[9 * kDim + 63] = -3;
    fill(11, 1e-38f);
    fill(12, std::numeric_limits<float>::denorm_min());
    for (std::size_t j = 0; j < kDim; ++j) {
      x[14 * kDim + j] *= 1e30f;
      x[15 * kDim + j] *= 1e-3f;
      x[16 * kDim + j] *= 1000;
    }
    fill(17, 0.0f);
    x[17 * kDim + 2] = 6e4f;
    x[19 * kDim + 8] = kNan;
    x[21 * kDim + 1] = kInfinity;
    fill(23, std::numeric_limits<float>::max());
    const std::vector<std::size_t> extreme{3, 5, 7, 9, 11, 12, 14, 15, 16, 17, 19, 21, 23};

    EncodedKeys keys;
    codec.encode(x.data(), kRows, keys);
    std::vector<float> decoded(kRows * kDim);
    codec.decode(keys, decoded.data());
    const std::size_t code_bytes = keys.codes.size() / kRows;
    for (std::size_t t = 0; t < kRows; ++t) {
      if (std::find(extreme.begin(), extreme.end(), t) != extreme.end()) continue;
      CAPTURE(t);
      const auto begin = static_cast<std::ptrdiff_t>(t * code_bytes);
      CHECK(std::equal(keys.codes.begin() + begin,
                       keys.codes.begin() + begin + static_cast<std::ptrdiff_t>(code_bytes),
                       before.codes.begin() + begin));
      CHECK(keys.scales[t] == before.scales[t]);
      if (prod) CHECK(keys.residual_norms[t] == before.residual_norms[t]);
      CHECK(std::equal(decoded.begin() + static_cast<std::ptrdiff_t>(t * kDim),
                       decoded.begin() + static_cast<std::ptrdiff_t>((t + 1) * kDim),
                       decoded_before.begin() + static_cast<std::ptrdiff_t>(t * kDim)));
    }

    const auto decoded_row = [&](std::size_t t) { return ref::widen({&decoded[t * kDim], kDim}); };
    const auto row = [&](std::size_t t) { return ref::widen({&x[t * kDim], kDim}); };
    for (const std::size_t t : {3u, 5u, 12u}) {
      CAPTURE(t);
      CHECK(keys.scales[t] == 0);
      CHECK(ref::norm(decoded_row(t)) == 0);
      if (prod) CHECK(keys.residual_norms[t] == 0);
    }
    CHECK(ref::norm(decoded_row(11)) == 0);  // below the smallest half
    // Quantised directions keep their cosine whatever the length; 2 bits leave 0.94, one-hot rows rotate to
    // +-1/8 each.
    for (const std::size_t t : {7u, 9u, 15u, 16u, 17u}) {
      CAPTURE(t);
      CHECK(ref::cosine(decoded_row(t), row(t)) > 0.8);
    }
    // A saturated scale keeps the direction in mse mode; in prod mode both parts saturate, and their
    // proportion is lost.
    CHECK(ref::cosine(decoded_row(14), row(14)) > (prod ? 0.5 : 0.8));
    CHECK(keys.scales[14] == 0x7bff);
    CHECK(keys.scales[23] == 0x7bff);
    CHECK(std::isnan(tq::half_to_float(keys.scales[19])));
    CHECK(std::isnan(decoded[19 * kDim]));
  }
}

TEST_CASE("one-hot keys decode for every coordinate") {
  const SmallCodec small;
  std::vector<float> x(64 * 64, 0.0f);
  for (std::size_t j = 0; j < 64; ++j) x[j * 64 + j] = static_cast<float>(j + 1);
  const KeyConfig config{KeyMode::mse, 8, ScaleRule::nc, SketchKind::orthogonal};
  const KeyCodec codec(config, small.rotation, nullptr, tq::default_key_tables(config, 64));
  EncodedKeys keys;
  codec.encode(x.data(), 64, keys);
  std::vector<float> decoded(x.size());
  codec.decode(keys, decoded.data());
  for (std::size_t t = 0; t < 64; ++t) {
    CHECK(ref::relative_error(ref::widen({&decoded[t * 64], 64}), ref::widen({&x[t * 64], 64})) < 0.03);
  }
}

TEST_CASE("a key on a boundary goes to the lower cell, and the sign of zero is -1") {
  // e_0 rotates to coordinates of exactly +-1/4 at d = 16.
  const auto rotation = std::make_shared<const Rotation>(Rotation::make(RotationKind::rht, 16, 2));
  const KeyConfig mse{KeyMode::mse, 1, ScaleRule::norm, SketchKind::orthogonal};
  const KeyTables tables{{1, {0.125, 0.5}, {-1, 0.25, 1}}, 0};
  const KeyCodec codec(mse, rotation, nullptr, tables);
  std::vector<float> x(16, 0.0f);
  x[0] = 1;
  EncodedKeys keys;
  codec.encode(x.data(), 1, keys);
  CHECK(keys.codes == std::vector<std::uint8_t>{0, 0});

  // Centroids of exactly +-1/4 leave no residual.
  const KeyConfig prod{KeyMode::prod, 2, ScaleRule::norm, SketchKind::orthogonal};
  const auto sketch = std::make_shared<const Sketch>(Sketch::make(SketchKind::orthogonal, 16, 2));
  const KeyCodec exact(prod, rotation, sketch, {{1, {-0.25, 0.25}, {-1, 0, 1}}, 1.0});
  exact.encode(x.data(), 1, keys);
  CHECK(keys.signs == std::vector<std::uint8_t>{0, 0});
  CHECK(keys.residual_norms[0] == 0);
  std::vector<float> decoded(16);
  exact.decode(keys, decoded.data());
  CHECK(decoded == x);
}

TEST_CASE("the default tables") {
  const SmallCodec small;
  CHECK(tq::default_key_tables(small.prod, 64).qjl_scale == std::sqrt(std::acos(-1.0) / 2));
  CHECK(tq::default_key_tables(small.prod, 64).codebook == tq::sphere_codebook(64, 2));
  CHECK(tq::default_key_tables(small.mse, 64).qjl_scale == 0);
  CHECK(tq::default_key_tables(small.mse, 64).codebook == tq::sphere_codebook(64, 3));
}

TEST_CASE("an alpha of one's own and a table of one's own take effect") {
  tq::Random random = test_random(46);
  const Problem p(RotationKind::rht, 64, 20, random);
  const SmallCodec small;
  const ref::Matrix dense_sketch = ref::dense(*small.sketch);
  const KeyTables standard = tq::default_key_tables(small.prod, 64);
  const KeyCodec by_default(small.prod, p.rotation, small.sketch, standard);
  EncodedKeys default_keys;
  by_default.encode(p.x.data(), p.rows, default_keys);
  std::vector<float> default_decoded(p.rows * p.d);
  by_default.decode(default_keys, default_decoded.data());

  KeyTables other_alpha = standard;
  other_alpha.qjl_scale = 0.8;
  KeyTables other_table = standard;
  for (double& c : other_table.codebook.centroids) c *= 1.1;
  other_table.codebook.boundaries = {-1, -0.12, 0.01, 0.1, 1};  // not midpoints
  for (const KeyTables& tables : {other_alpha, other_table}) {
    const KeyCodec codec(small.prod, p.rotation, small.sketch, tables);
    CHECK(codec.tables() == tables);
    EncodedKeys keys;
    codec.encode(p.x.data(), p.rows, keys);
    CHECK((keys.codes == default_keys.codes) == (tables.codebook == standard.codebook));
    std::vector<float> decoded(p.rows * p.d);
    codec.decode(keys, decoded.data());
    CHECK(decoded != default_decoded);
    Mistakes m;
    check_encoding(p, codec, &dense_sketch, keys, m);
    check_decoding(p, codec, &dense_sketch, keys, m);
    check(m, p);
  }
}

TEST_CASE("tables and parts that do not fit are refused") {
  const SmallCodec small;
  const KeyTables mse_tables = tq::default_key_tables(small.mse, 64);
  const KeyTables prod_tables = tq::default_key_tables(small.prod, 64);
  const auto build = [&](const KeyConfig& config, std::shared_ptr<const Rotation> rotation,
                         std::shared_ptr<const Sketch> sketch, const KeyTables& tables) {
    KeyCodec(config, std::move(rotation), std::move(sketch), tables);
  };
  CHECK_NOTHROW(build(small.mse, small.rotation, nullptr, mse_tables));
  CHECK_NOTHROW(build(small.prod, small.rotation, small.sketch, prod_tables));
  // An alpha without its table, and a table of another width.
  CHECK_THROWS_AS(build(small.prod, small.rotation, small.sketch, KeyTables{{}, prod_tables.qjl_scale}),
                  tq::InputError);
  CHECK_THROWS_AS(build(small.prod, small.rotation, small.sketch, mse_tables), tq::InputError);
  CHECK_THROWS_AS(build(small.mse, small.rotation, nullptr, prod_tables), tq::InputError);
  // An alpha where there is no sign bit.
  KeyTables mse_with_alpha = mse_tables;
  mse_with_alpha.qjl_scale = 0.5;
  CHECK_THROWS_AS(build(small.mse, small.rotation, nullptr, mse_with_alpha), tq::InputError);
  KeyTables damaged = prod_tables;
  damaged.qjl_scale = 3;
  CHECK_THROWS_AS(build(small.prod, small.rotation, small.sketch, damaged), tq::InputError);
  damaged = prod_tables;
  damaged.codebook.centroids.pop_back();
  CHECK_THROWS_AS(build(small.prod, small.rotation, small.sketch, damaged), tq::InputError);
  damaged = prod_tables;
  damaged.codebook.boundaries.push_back(2);
  CHECK_THROWS_AS(build(small.prod, small.rotation, small.sketch, damaged), tq::InputError);
  // Missing or mismatched parts are mistakes of the program.
  CHECK_THROWS_AS(build(small.mse, nullptr, nullptr, mse_tables), std::invalid_argument);
  CHECK_THROWS_AS(build(small.prod, small.rotation, nullptr, prod_tables), std::invalid_argument);
  const auto wide = std::make_shared<const Sketch>(Sketch::make(SketchKind::orthogonal, 128, 1));
  CHECK_THROWS_AS(build(small.prod, small.rotation, wide, prod_tables), std::invalid_argument);
  KeyConfig bad = small.mse;
  bad.bits = 9;
  CHECK_THROWS_AS(build(bad, small.rotation, nullptr, mse_tables), tq::UsageError);
  const KeyCodec mse(small.mse, small.rotation, nullptr, mse_tables);
  CHECK_THROWS_AS(mse.residual_products(nullptr, 0, nullptr), std::invalid_argument);
  CHECK_THROWS_AS(mse.residual_products_rotated(nullptr, 0, nullptr), std::invalid_argument);
}
