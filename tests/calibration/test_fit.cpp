#include <doctest/doctest.h>

#include <cmath>
#include <memory>
#include <numbers>
#include <vector>

#include "calibration/coordinate_histogram.h"
#include "calibration/fit_alpha.h"
#include "calibration/fit_codebook.h"
#include "core/codebook.h"
#include "core/error.h"
#include "core/key_codec.h"
#include "datasets/synthetic.h"
#include "tests/support/reference.h"
#include "tests/support/test_seed.h"

namespace {

constexpr int kDim = 64;

std::vector<float> laplace_rows(tq::Random& random, std::size_t rows, int d) {
  std::vector<float> x(rows * static_cast<std::size_t>(d));
  for (float& value : x) {
    const double u = random.uniform() - 0.5;
    value = static_cast<float>(std::copysign(std::log(1 - 2 * std::fabs(u)) / std::numbers::sqrt2, u));
  }
  return x;
}

tq::KeyCodec prod_codec(tq::SketchKind sketch, tq::KeyTables tables, int bits) {
  tq::KeyConfig config;
  config.mode = tq::KeyMode::prod;
  config.bits = bits;
  config.sketch = sketch;
  return tq::KeyCodec(config,
                      std::make_shared<tq::Rotation>(tq::Rotation::make(tq::RotationKind::rht, kDim, 5)),
                      std::make_shared<tq::Sketch>(tq::Sketch::make(sketch, kDim, 5)), std::move(tables));
}

tq::ResidualStatistics statistics_of(const std::vector<tq::ResidualProducts>& products) {
  tq::ResidualStatistics statistics;
  for (std::size_t i = 0; i < products.size(); ++i) statistics.add(products[i], i);
  return statistics;
}

// sum ||r - (alpha/d) ||r|| g||^2 over rotated residuals, from the definition in float64.
double residual_error(const std::vector<float>& residuals, const tq::Sketch& sketch, double alpha) {
  const tq::reference::Matrix s = tq::reference::dense(sketch);
  const std::size_t d = kDim;
  double error = 0;
  for (std::size_t row = 0; row + d <= residuals.size(); row += d) {
    const auto r = tq::reference::widen(std::span(residuals).subspan(row, d));
    auto signs = tq::reference::multiply(s, r);
    for (double& sign : signs) sign = sign > 0 ? 1 : -1;
    const auto g = tq::reference::multiply_transposed(s, signs);
    const double gain = alpha / kDim * tq::reference::norm(r);
    for (std::size_t j = 0; j < d; ++j) error += (r[j] - gain * g[j]) * (r[j] - gain * g[j]);
  }
  return error;
}

double decoded_error(const tq::KeyCodec& codec, const std::vector<float>& x) {
  tq::EncodedKeys encoded;
  codec.encode(x.data(), x.size() / kDim, encoded);
  std::vector<float> decoded(x.size());
  codec.decode(encoded, decoded.data());
  double error = 0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    const double difference = static_cast<double>(x[i]) - static_cast<double>(decoded[i]);
    error += difference * difference;
  }
  return error;
}

}  // namespace

TEST_CASE("a table fitted to the sphere's own coordinates is the sphere's table") {
  // Counts of the exact marginal: the histogram's resolution is all that separates the two tables.
  const int d = 128, bits = 3;
  tq::Random random = tq::test::test_random(910);
  tq::CoordinateHistogram histogram(d);
  std::vector<float> rows(400 * static_cast<std::size_t>(d));
  const std::vector<float> ones(400, 1.0f);
  for (int repeat = 0; repeat < 50; ++repeat) {
    for (std::size_t r = 0; r < 400; ++r) {
      double square = 0;
      for (std::size_t j = 0; j < static_cast<std::size_t>(d); ++j) {
        const double value = random.normal();
        rows[r * static_cast<std::size_t>(d) + j] = static_cast<float>(value);
        square += value * value;
      }
      for (std::size_t j = 0; j < static_cast<std::size_t>(d); ++j) {
        rows[r * static_cast<std::size_t>(d) + j] /= static_cast<float>(std::sqrt(square));
      }
    }
    histogram.add(rows.data(), ones.data(), 400);
  }
  const tq::Codebook fitted = tq::fit_codebook(histogram, bits, "layer"),
                     sphere = tq::sphere_codebook(d, bits);
  for (std::size_t i = 0; i < fitted.centroids.size(); ++i) {
    CHECK(fitted.centroids[i] == doctest::Approx(sphere.centroids[i]).epsilon(0.01));
  }
  CHECK(tq::sphere_mse(fitted, d) == doctest::Approx(tq::sphere_mse(sphere, d)).epsilon(1e-4));
}

TEST_CASE("a fitted table has the least error on its own histogram") {
  const int d = 64;
  tq::Random random = tq::test::test_random(911);
  tq::CoordinateHistogram histogram(d);
  std::vector<float> y(4000 * static_cast<std::size_t>(d));
  for (float& value : y) {  // skewed and off centre, unlike the sphere
    const double n = random.normal();
    value = static_cast<float>(0.02 + 0.1 * n + 0.04 * (n * n - 1));
  }
  histogram.add(y.data(), std::vector<float>(4000, 1.0f).data(), 4000);
  const auto error = [&](const tq::Codebook& book) {
    double sum = 0;
    for (const float value : y) {
      const double c =
          book.centroids[static_cast<std::size_t>(tq::reference::cell(book, static_cast<double>(value)))];
      sum += (static_cast<double>(value) - c) * (static_cast<double>(value) - c);
    }
    return sum;
  };
  for (const int bits : {1, 2, 3, 4, 6, 8}) {
    CAPTURE(bits);
    const tq::Codebook fitted = tq::fit_codebook(histogram, bits, "layer");
    CHECK_NOTHROW(tq::validate(fitted, "fitted"));
    const double best = error(fitted);
    CHECK(best < error(tq::sphere_codebook(d, bits)));
    const std::size_t middle = fitted.centroids.size() / 2;
    const double gap = fitted.centroids[middle] - fitted.centroids[middle - 1];
    for (const double shift : {-0.3 * gap, 0.3 * gap}) {  // no neighbouring table is better
      tq::Codebook moved = fitted;
      for (double& c : moved.centroids) c += shift;
      moved.boundaries = tq::midpoint_boundaries(moved.centroids);
      CHECK(error(moved) > best);
    }
  }
  CHECK_THROWS_WITH_AS(
      tq::fit_codebook(tq::CoordinateHistogram(d), 3, "a.kv.h5: layer 3"),
      "a.kv.h5: layer 3: only zero vectors, which no 3-bit table can be fitted to; capture it again",
      tq::InputError);
}

TEST_CASE("histograms merge exactly and skip zero vectors") {
  tq::Random random = tq::test::test_random(912);
  const std::vector<float> y = tq::test::normal_values(random, 200 * kDim, 0.1);
  std::vector<float> norms(200, 1.0f);
  norms[7] = 0;
  tq::CoordinateHistogram whole(kDim), a(kDim), b(kDim);
  whole.add(y.data(), norms.data(), 200);
  a.add(y.data(), norms.data(), 77);
  b.add(y.data() + 77 * kDim, norms.data() + 77, 123);
  b.merge(a);
  CHECK(whole.counts() == b.counts());
  CHECK(whole.samples() == 199 * kDim);
  CHECK_THROWS_AS(a.merge(tq::CoordinateHistogram(128)), std::invalid_argument);
}

TEST_CASE("the fitted alpha on Gaussian residuals is the closed form within 0.5 %") {
  tq::Random random = tq::test::test_random(913);
  const std::size_t rows = 20000;
  const std::vector<float> residuals = tq::test::normal_values(random, rows * kDim);
  std::vector<tq::ResidualProducts> products(rows);
  for (const auto sketch : {tq::SketchKind::gaussian, tq::SketchKind::orthogonal}) {
    const tq::KeyCodec codec = prod_codec(sketch, {tq::sphere_codebook(kDim, 2), tq::kUnbiasedAlpha}, 3);
    codec.residual_products_rotated(residuals.data(), rows, products.data());
    const double alpha = tq::fit_alpha(tq::AlphaTarget::mse, statistics_of(products), kDim, "layer");
    // One Gaussian sketch is one draw: its own expectation differs from the mean over sketches by about 1 /
    // d.
    const double expected = sketch == tq::SketchKind::gaussian ? tq::isotropic_alpha_gaussian(kDim)
                                                               : tq::isotropic_alpha_orthogonal(kDim);
    CHECK(alpha == doctest::Approx(expected).epsilon(sketch == tq::SketchKind::gaussian ? 0.02 : 0.005));
  }
  // Over many sketches the Gaussian closed form holds to 0.5 %.
  double projected = 0, energy = 0;
  tq::KeyConfig config{tq::KeyMode::prod, 3, tq::ScaleRule::nc, tq::SketchKind::gaussian};
  const auto rotation = std::make_shared<tq::Rotation>(tq::Rotation::make(tq::RotationKind::rht, kDim, 5));
  for (std::uint64_t seed = 0; seed < 40; ++seed) {
    const tq::KeyCodec codec(config, rotation,
                             std::make_shared<tq::Sketch>(tq::Sketch::make(config.sketch, kDim, 1000 + seed)),
                             {tq::sphere_codebook(kDim, 2), tq::kUnbiasedAlpha});
    codec.residual_products_rotated(residuals.data(), 2000, products.data());
    const tq::ResidualStatistics statistics =
        statistics_of(std::vector<tq::ResidualProducts>(products.begin(), products.begin() + 2000));
    projected += statistics.projected();
    energy += statistics.energy();
  }
  CHECK(kDim * projected / energy == doctest::Approx(tq::isotropic_alpha_gaussian(kDim)).epsilon(0.005));
}

TEST_CASE("calibrated alpha beats the default in L2 on Laplace residuals") {
  tq::Random random = tq::test::test_random(914);
  const std::size_t rows = 1500;
  const std::vector<float> residuals = laplace_rows(random, rows, kDim);
  std::vector<tq::ResidualProducts> products(rows);
  for (const auto kind : {tq::SketchKind::gaussian, tq::SketchKind::orthogonal}) {
    const tq::KeyCodec codec = prod_codec(kind, {tq::sphere_codebook(kDim, 2), tq::kUnbiasedAlpha}, 3);
    codec.residual_products_rotated(residuals.data(), rows, products.data());
    const double alpha = tq::fit_alpha(tq::AlphaTarget::mse, statistics_of(products), kDim, "layer");
    const tq::Sketch sketch = tq::Sketch::make(kind, kDim, 5);
    const double fitted = residual_error(residuals, sketch, alpha);
    CHECK(fitted < residual_error(residuals, sketch, tq::kUnbiasedAlpha));
    // It is the minimum: moving away in either direction costs.
    CHECK(fitted < residual_error(residuals, sketch, alpha * 1.02));
    CHECK(fitted < residual_error(residuals, sketch, alpha * 0.98));
  }
}

TEST_CASE("calibrated alpha beats the default in L2 through prod, end to end") {
  tq::Random random = tq::test::test_random(915);
  const std::size_t rows = 3000;
  const std::vector<float> fit = laplace_rows(random, rows, kDim),
                           held_out = laplace_rows(random, rows, kDim);
  std::vector<tq::ResidualProducts> products(rows);
  for (const auto sketch : {tq::SketchKind::gaussian, tq::SketchKind::orthogonal}) {
    for (const int bits : {2, 3, 4}) {
      CAPTURE(bits);
      const tq::KeyTables standard{tq::sphere_codebook(kDim, bits - 1), tq::kUnbiasedAlpha};
      const tq::KeyCodec codec = prod_codec(sketch, standard, bits);
      codec.residual_products(fit.data(), rows, products.data());
      const double alpha = tq::fit_alpha(tq::AlphaTarget::mse, statistics_of(products), kDim, "layer");
      const tq::KeyCodec calibrated = prod_codec(sketch, {standard.codebook, alpha}, bits);
      CHECK(decoded_error(calibrated, held_out) < decoded_error(codec, held_out));
    }
  }
}

TEST_CASE("the cos target maximises the mean cosine") {
  tq::Random random = tq::test::test_random(916);
  const std::size_t rows = 2000;
  const std::vector<float> x = laplace_rows(random, rows, kDim);
  const tq::KeyTables tables{tq::sphere_codebook(kDim, 2), 1.0};
  const tq::KeyCodec codec = prod_codec(tq::SketchKind::orthogonal, tables, 3);
  std::vector<tq::ResidualProducts> products(rows);
  codec.residual_products(x.data(), rows, products.data());
  const tq::ResidualStatistics statistics = statistics_of(products);
  const double alpha = tq::fit_alpha(tq::AlphaTarget::cos, statistics, kDim, "layer");
  const double best = tq::mean_cosine(statistics.sample(), alpha, kDim);
  for (double other = 0.05; other < 2; other += 0.05) {
    CHECK(best >= tq::mean_cosine(statistics.sample(), other, kDim) - 1e-12);
  }
  // mean_cosine predicts what decoding gives.
  const tq::KeyCodec fitted = prod_codec(tq::SketchKind::orthogonal, {tables.codebook, alpha}, 3);
  tq::EncodedKeys encoded;
  fitted.encode(x.data(), rows, encoded);
  std::vector<float> decoded(x.size());
  fitted.decode(encoded, decoded.data());
  double mean = 0;
  for (std::size_t r = 0; r < rows; ++r) {
    mean += tq::reference::cosine(tq::reference::widen(std::span(x).subspan(r * kDim, kDim)),
                                  tq::reference::widen(std::span(decoded).subspan(r * kDim, kDim))) /
            static_cast<double>(rows);
  }
  CHECK(mean == doctest::Approx(best).epsilon(1e-4));
}

TEST_CASE("residual statistics merge in any order, and sample the same rows") {
  tq::Random random = tq::test::test_random(917);
  const std::size_t rows = 2 * tq::ResidualStatistics::kSample + 5000;
  std::vector<tq::ResidualProducts> products(rows);
  for (auto& p : products) {
    p = {};
    p.norm = static_cast<float>(random.uniform());
    p.residual_norm = static_cast<float>(random.uniform());
    p.rg = static_cast<float>(random.normal());
    p.gg = static_cast<float>(random.uniform());
  }
  const tq::ResidualStatistics whole = statistics_of(products);
  std::vector<tq::ResidualStatistics> parts(5);
  for (std::size_t i = rows; i-- > 0;) parts[i * 7 % 5].add(products[i], i);
  tq::ResidualStatistics merged;
  for (const std::size_t part : {3u, 0u, 4u, 1u, 2u}) merged.merge(parts[part]);
  CHECK(merged.rows() == whole.rows());
  CHECK(merged.projected() == whole.projected());
  CHECK(merged.energy() == whole.energy());
  const auto a = whole.sample(), b = merged.sample();
  REQUIRE(a.size() == tq::ResidualStatistics::kSample);
  REQUIRE(b.size() == a.size());
  for (std::size_t i = 0; i < a.size(); ++i) REQUIRE(a[i].norm == b[i].norm);
  CHECK_THROWS_AS(tq::fit_alpha(tq::AlphaTarget::mse, tq::ResidualStatistics(), kDim, "layer"),
                  tq::InputError);
}
