#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <vector>

#include "core/key_codec.h"
#include "tests/support/reference.h"
#include "tests/support/test_seed.h"

namespace ref = tq::reference;
using tq::KeyCodec;
using tq::KeyConfig;
using tq::KeyMode;
using tq::ResidualProducts;
using tq::Rotation;
using tq::RotationKind;
using tq::ScaleRule;
using tq::Sketch;
using tq::SketchKind;
using tq::test::normal_values;
using tq::test::test_random;

namespace {

KeyCodec prod_codec(int d, SketchKind kind, int bits, tq::Random& random) {
  const KeyConfig config{KeyMode::prod, bits, ScaleRule::norm, kind};
  return KeyCodec(config,
                  std::make_shared<const Rotation>(Rotation::make(RotationKind::rht, d, random.bits64())),
                  std::make_shared<const Sketch>(Sketch::make(kind, d, random.bits64())),
                  tq::default_key_tables(config, d));
}

// Sums over many residuals and several sketches that decide alpha.
struct AlphaSums {
  double rg = 0, gg = 0, rr = 0;
  double d = 0;

  void add(const std::vector<ResidualProducts>& products) {
    for (const ResidualProducts& p : products) {
      const double length = static_cast<double>(p.residual_norm);
      rg += length * static_cast<double>(p.rg);
      gg += length * length * static_cast<double>(p.gg);
      rr += length * length;
    }
  }
  double least_squares() const { return d * rg / gg; }
  // sum ||r - (alpha/d) ||r|| g||^2 / sum ||r||^2
  double left(double alpha) const { return 1 - 2 * alpha / d * rg / rr + alpha * alpha / (d * d) * gg / rr; }
};

AlphaSums isotropic_sums(int d, SketchKind kind, tq::Random& random) {
  AlphaSums sums;
  sums.d = d;
  constexpr std::size_t kRows = 600;
  std::vector<ResidualProducts> products(kRows);
  // A Gaussian sketch is itself a sample: its fluctuation shifts all rows alike.
  for (int repeat = 0; repeat < (kind == SketchKind::gaussian ? 40 : 8); ++repeat) {
    const KeyCodec codec = prod_codec(d, kind, 3, random);
    const std::vector<float> r = normal_values(random, kRows * static_cast<std::size_t>(d));
    codec.residual_products_rotated(r.data(), kRows, products.data());
    sums.add(products);
  }
  return sums;
}

}  // namespace

TEST_CASE("residual products agree with the reference") {
  tq::Random random = test_random(50);
  for (const int d : {40, 64, 128}) {
    for (const SketchKind kind : {SketchKind::gaussian, SketchKind::orthogonal}) {
      CAPTURE(d);
      CAPTURE(std::string(tq::to_string(kind)));
      const auto n = static_cast<std::size_t>(d);
      const KeyConfig config{KeyMode::prod, 3, ScaleRule::norm, kind};
      const auto rotation =
          std::make_shared<const Rotation>(Rotation::make(RotationKind::rht, d, random.bits64()));
      const auto sketch = std::make_shared<const Sketch>(Sketch::make(kind, d, random.bits64()));
      const KeyCodec codec(config, rotation, sketch, tq::default_key_tables(config, d));
      const ref::Matrix pi = ref::dense(*rotation), s = ref::dense(*sketch);
      constexpr std::size_t kRows = 21;
      const std::vector<float> x = normal_values(random, kRows * n, 5);
      std::vector<ResidualProducts> products(kRows);
      codec.residual_products(x.data(), kRows, products.data());
      double worst = 0;
      std::size_t uncertain = 0;
      const auto compare = [&](float value, double exact, double size) {
        worst = std::max(worst, std::fabs(static_cast<double>(value) - exact) / size);
      };
      for (std::size_t t = 0; t < kRows; ++t) {
        const ref::Vector in = ref::widen({&x[t * n], n}), y = ref::rotated_direction(pi, in);
        ref::Vector c, r;
        for (const double value : y) {
          c.push_back(
              codec.tables()
                  .codebook.centroids[static_cast<std::size_t>(ref::cell(codec.tables().codebook, value))]);
          r.push_back(value - c.back());
        }
        ref::Vector signs = ref::multiply(s, r);
        const bool certain =
            std::all_of(signs.begin(), signs.end(), [](double z) { return std::fabs(z) > 1e-5; }) &&
            std::all_of(y.begin(), y.end(), [&](double value) {
              return ref::distance_to_boundary(codec.tables().codebook, value) > 1e-6;
            });
        if (!certain) {
          ++uncertain;
          continue;
        }
        for (double& sign : signs) sign = sign > 0 ? 1 : -1;
        const ref::Vector g = ref::multiply_transposed(s, signs);
        const ResidualProducts& p = products[t];
        compare(p.norm, ref::norm(in), ref::norm(in));
        compare(p.yc, ref::dot(y, c), 1);
        compare(p.cc, ref::dot(c, c), 1);
        compare(p.residual_norm, ref::norm(r), ref::norm(r));
        compare(p.rg, ref::dot(r, g), ref::norm(r) * ref::norm(g));
        compare(p.cg, ref::dot(c, g), ref::norm(c) * ref::norm(g));
        compare(p.gg, ref::dot(g, g), ref::dot(g, g));
      }
      CHECK(worst < 2e-6);
      CHECK(uncertain < kRows / 2);
    }
  }
}

TEST_CASE("residuals given in the rotated frame") {
  tq::Random random = test_random(51);
  const KeyCodec codec = prod_codec(64, SketchKind::orthogonal, 3, random);
  std::vector<float> r = normal_values(random, 20 * 64, 0.3);
  std::vector<ResidualProducts> products(20), scaled(20);
  codec.residual_products_rotated(r.data(), 20, products.data());
  for (float& value : r) value *= 8;
  codec.residual_products_rotated(r.data(), 20, scaled.data());
  for (std::size_t t = 0; t < 20; ++t) {
    const ResidualProducts& p = products[t];
    CHECK(p.residual_norm == doctest::Approx(1).epsilon(1e-6));
    CHECK(p.yc == 0);
    CHECK(p.cc == 0);
    CHECK(p.cg == 0);
    CHECK(scaled[t].norm == 8 * p.norm);
    CHECK(scaled[t].rg == p.rg);
    CHECK(scaled[t].gg == p.gg);
  }
}

TEST_CASE("rows of norm 0 give zeros") {
  tq::Random random = test_random(52);
  const KeyCodec codec = prod_codec(64, SketchKind::orthogonal, 3, random);
  std::vector<float> x = normal_values(random, 20 * 64);
  std::fill_n(x.begin() + 5 * 64, 64, 0.0f);
  std::vector<ResidualProducts> of_keys(20), of_residuals(20);
  codec.residual_products(x.data(), 20, of_keys.data());
  codec.residual_products_rotated(x.data(), 20, of_residuals.data());
  for (const ResidualProducts& p : {of_keys[5], of_residuals[5]}) {
    CHECK(p.norm == 0);
    CHECK(p.yc == 0);
    CHECK(p.cc == 0);
    CHECK(p.residual_norm == 0);
    CHECK(p.rg == 0);
    CHECK(p.cg == 0);
    CHECK(p.gg == 0);
  }
  CHECK(of_keys[4].gg > 0);
}

TEST_CASE("least-squares alpha of isotropic residuals is the closed form") {
  tq::Random random = test_random(53);
  for (const int d : {64, 128}) {
    CAPTURE(d);
    const AlphaSums gaussian = isotropic_sums(d, SketchKind::gaussian, random);
    const AlphaSums orthogonal = isotropic_sums(d, SketchKind::orthogonal, random);
    CHECK(gaussian.least_squares() == doctest::Approx(tq::isotropic_alpha_gaussian(d)).epsilon(0.005));
    CHECK(orthogonal.least_squares() == doctest::Approx(tq::isotropic_alpha_orthogonal(d)).epsilon(0.005));
    // 1.57 is the limit pi / 2; a sketch of d rows leaves 1 / d less, and 40 sketches vary by 0.007.
    CHECK(std::fabs(gaussian.left(tq::kUnbiasedAlpha) - (1.5708 - 1.0 / d)) < 0.04);
    CHECK(std::fabs(gaussian.left(gaussian.least_squares()) - 0.61) < 0.01);
    CHECK(std::fabs(orthogonal.left(tq::kUnbiasedAlpha) - 0.57) < 0.01);
    CHECK(std::fabs(orthogonal.left(orthogonal.least_squares()) - 0.36) < 0.01);
  }
}

TEST_CASE("the residuals of Gaussian keys are close to isotropic") {
  tq::Random random = test_random(54);
  AlphaSums sums;
  sums.d = 128;
  std::vector<ResidualProducts> products(1000);
  for (int repeat = 0; repeat < 8; ++repeat) {
    const KeyCodec codec = prod_codec(128, SketchKind::gaussian, 3, random);
    const std::vector<float> x = normal_values(random, 1000 * 128);
    codec.residual_products(x.data(), 1000, products.data());
    sums.add(products);
  }
  CHECK(sums.least_squares() == doctest::Approx(tq::isotropic_alpha_gaussian(128)).epsilon(0.005));
}

TEST_CASE("the unbiased alpha makes scores unbiased for a Gaussian sketch") {
  // The mean over sketches of (alpha/d) <S^T sign(S r), r> is ||r||^2 / ||r||: left over 1 of the residual's
  // length.
  tq::Random random = test_random(55);
  const AlphaSums sums = isotropic_sums(64, SketchKind::gaussian, random);
  CHECK(tq::kUnbiasedAlpha / 64 * sums.rg / sums.rr == doctest::Approx(1).epsilon(0.005));
}
