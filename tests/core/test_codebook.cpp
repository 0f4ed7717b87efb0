#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include "core/codebook.h"
#include "core/error.h"
#include "tests/support/reference.h"

namespace {

// From an independent float64 implementation: positive centroids to 12 decimals, the total MSE to 9.
struct PrintedTable {
  int head_dim, bits;
  double mse;
  std::vector<double> positive;
};

const std::vector<PrintedTable>& printed_tables() {
  static const std::vector<PrintedTable> tables{
      {64, 2, 0.114525757, {0.056514868764, 0.187496849420}},
      {64, 3, 0.033390834, {0.030469178931, 0.093832263218, 0.166167858925, 0.263913930845}},
      {128, 1, 0.360888594, {0.070661572738}},
      {128, 2, 0.116000070, {0.039991595198, 0.133041520250}},
      {128, 3, 0.033965926, {0.021604310642, 0.066585608047, 0.118139766997, 0.188397185970}},
      {128,
       4,
       0.009314788,
       {0.011302496591, 0.034151570704, 0.057772298777, 0.082828457307, 0.110288369050, 0.141805196783,
        0.180835963753, 0.237663826765}},
      {256, 3, 0.034256004, {0.015297487665, 0.047166710339, 0.083765456877, 0.133854290075}},
  };
  return tables;
}

// A valid one-bit table to damage.
tq::Codebook small_table() { return {1, {-0.25, 0.25}, {-1, 0, 1}}; }

std::string refusal(const tq::Codebook& table) {
  try {
    tq::validate(table, "keys.tq.h5: /layers/003/key");
  } catch (const tq::InputError& error) {
    return error.what();
  }
  return {};
}

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

}  // namespace

TEST_CASE("the printed reference tables") {
  for (const PrintedTable& printed : printed_tables()) {
    CAPTURE(printed.head_dim);
    CAPTURE(printed.bits);
    const tq::Codebook book = tq::sphere_codebook(printed.head_dim, printed.bits);
    const std::size_t half = printed.positive.size();
    REQUIRE(book.centroids.size() == 2 * half);
    for (std::size_t i = 0; i < half; ++i) {
      CHECK(std::fabs(book.centroids[half + i] - printed.positive[i]) < 1e-12);
      CHECK(std::fabs(book.centroids[half - 1 - i] + printed.positive[i]) < 1e-12);
    }
    CHECK(std::fabs(tq::sphere_mse(book, printed.head_dim) - printed.mse) < 1e-9);
  }
}

TEST_CASE("Lloyd's iteration by quadrature finds the same tables") {
  for (const int head_dim : {16, 40, 128, 1024}) {
    for (int bits = 1; bits <= 4; ++bits) {
      CAPTURE(head_dim);
      CAPTURE(bits);
      const tq::Codebook book = tq::sphere_codebook(head_dim, bits);
      const tq::reference::Vector positive = tq::reference::lloyd_max(head_dim, bits);
      double worst = 0;
      for (std::size_t i = 0; i < positive.size(); ++i) {
        worst = std::max(worst, std::fabs(book.centroids[positive.size() + i] - positive[i]));
      }
      CHECK(worst < 1e-10);
    }
  }
}

TEST_CASE("every table is symmetric, increasing, and meets the centroid condition") {
  for (const int head_dim : {4, 16, 24, 40, 64, 96, 128, 200, 256, 576, 1000, 1024}) {
    for (int bits = 1; bits <= 8; ++bits) {
      CAPTURE(head_dim);
      CAPTURE(bits);
      const tq::Codebook book = tq::sphere_codebook(head_dim, bits);
      const std::size_t size = std::size_t{1} << bits;
      REQUIRE(book.bits == bits);
      REQUIRE(book.centroids.size() == size);
      REQUIRE(book.boundaries.size() == size + 1);
      CHECK_NOTHROW(tq::validate(book, "test"));
      bool symmetric = true;
      for (std::size_t i = 0; i < size; ++i) {
        symmetric = symmetric && book.centroids[i] == -book.centroids[size - 1 - i];
      }
      CHECK(symmetric);
      CHECK(std::is_sorted(book.centroids.begin(), book.centroids.end(), std::less_equal<>()));
      CHECK(book.boundaries == tq::midpoint_boundaries(book.centroids));
      CHECK(book.boundaries.front() == -1);
      CHECK(book.boundaries.back() == 1);
      CHECK(tq::sphere_centroid_residual(book, head_dim) < 1e-12);
      double residual = 0;
      for (std::size_t i = size / 2; i < size; ++i) {
        const auto moments =
            tq::reference::sphere_moments(head_dim, book.boundaries[i], book.boundaries[i + 1]);
        residual = std::max(residual, std::fabs(moments.first / moments.mass - book.centroids[i]));
      }
      CHECK(residual < 1e-12);
    }
  }
}

TEST_CASE("sphere_mse against quadrature, also for tables that are not optimal") {
  for (const int head_dim : {16, 64, 128, 1000}) {
    for (int bits = 1; bits <= 8; ++bits) {
      CAPTURE(head_dim);
      CAPTURE(bits);
      tq::Codebook book = tq::sphere_codebook(head_dim, bits);
      const double optimal = tq::sphere_mse(book, head_dim);
      CHECK(std::fabs(optimal - tq::reference::sphere_mse(head_dim, book.centroids, book.boundaries)) <
            1e-12);
      for (double& c : book.centroids) c *= 1.01;
      const double scaled = tq::sphere_mse(book, head_dim);
      CHECK(scaled > optimal);
      CHECK(std::fabs(scaled - tq::reference::sphere_mse(head_dim, book.centroids, book.boundaries)) < 1e-12);
    }
  }
}

TEST_CASE("the table that upstream ships stopped early, and the residual shows it") {
  tq::Codebook upstream = tq::sphere_codebook(128, 3);
  upstream.centroids.back() = 0.188390613802;
  upstream.centroids.front() = -0.188390613802;
  upstream.boundaries = tq::midpoint_boundaries(upstream.centroids);
  CHECK(tq::sphere_centroid_residual(upstream, 128) > 1e-6);
  CHECK(tq::sphere_centroid_residual(tq::sphere_codebook(128, 3), 128) < 1e-12);
}

TEST_CASE("a sphere codebook needs d >= 4 and 1 to 8 bits") {
  CHECK_THROWS_AS(tq::sphere_codebook(3, 3), tq::UsageError);
  CHECK_THROWS_AS(tq::sphere_codebook(128, 0), tq::UsageError);
  CHECK_THROWS_AS(tq::sphere_codebook(128, 9), tq::UsageError);
}

TEST_CASE("validate refuses every kind of bad table and says where") {
  constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  CHECK(refusal(small_table()).empty());

  const auto damaged = [](const std::function<void(tq::Codebook&)>& damage) {
    tq::Codebook table = small_table();
    damage(table);
    return refusal(table);
  };
  CHECK(contains(damaged([](auto& t) { t.bits = 0; }), "keys.tq.h5: /layers/003/key: 0 bits"));
  CHECK(contains(damaged([](auto& t) { t.bits = 9; }), "9 bits"));
  CHECK(contains(damaged([](auto& t) { t.bits = -1; }), "-1 bits"));
  CHECK(contains(damaged([](auto& t) { t.centroids.pop_back(); }), "1 centroids"));
  CHECK(contains(damaged([](auto& t) { t.boundaries.pop_back(); }), "2 boundaries"));
  CHECK(contains(damaged([](auto& t) { t.centroids.push_back(0.5); }), "3 centroids"));
  CHECK(contains(damaged([](auto& t) { t.bits = 2; }), "a 2-bit table has 4 and 5"));
  CHECK(contains(damaged([&](auto& t) { t.centroids[0] = kNan; }), "centroids[0] is not finite"));
  CHECK(contains(damaged([&](auto& t) { t.centroids[1] = kInfinity; }), "centroids[1] is not finite"));
  CHECK(contains(damaged([&](auto& t) { t.boundaries[1] = kNan; }), "boundaries[1] is not finite"));
  CHECK(contains(damaged([&](auto& t) { t.boundaries[2] = kInfinity; }), "boundaries[2] is not finite"));
  CHECK(contains(damaged([](auto& t) { std::swap(t.centroids[0], t.centroids[1]); }),
                 "not strictly increasing"));
  CHECK(contains(damaged([](auto& t) { t.boundaries[1] = -1; }), "not strictly increasing"));
  // Distinct in float64, one value in float32.
  CHECK(contains(damaged([](auto& t) { t.centroids = {0.25, 0.25 + 1e-12}; }), "not strictly increasing"));
  CHECK(contains(damaged([](auto& t) { t.boundaries[1] = 0.3; }), "outside its cell"));
  CHECK(contains(damaged([](auto& t) { t.boundaries[1] = -0.3; }), "outside its cell"));
}

TEST_CASE("key tables carry an alpha from 0 to 2") {
  const auto check = [](double alpha) { tq::validate(tq::KeyTables{small_table(), alpha}, "test"); };
  CHECK_NOTHROW(check(0));
  CHECK_NOTHROW(check(2));
  CHECK_NOTHROW(check(tq::kUnbiasedAlpha));
  CHECK_THROWS_AS(check(-0.1), tq::InputError);
  CHECK_THROWS_AS(check(2.001), tq::InputError);
  CHECK_THROWS_AS(check(std::numeric_limits<double>::quiet_NaN()), tq::InputError);
  CHECK_THROWS_AS(check(std::numeric_limits<double>::infinity()), tq::InputError);
  CHECK_THROWS_AS(tq::validate(tq::KeyTables{tq::Codebook(), 1.0}, "test"), tq::InputError);
}

TEST_CASE("alpha constants") {
  CHECK(tq::kUnbiasedAlpha == std::sqrt(std::acos(-1.0) / 2));
  CHECK(std::fabs(tq::isotropic_alpha_gaussian(64) - 0.49050) < 5e-6);
  CHECK(std::fabs(tq::isotropic_alpha_gaussian(128) - 0.48901) < 5e-6);
  CHECK(std::fabs(tq::isotropic_alpha_orthogonal(64) - 0.80101) < 5e-6);
  CHECK(std::fabs(tq::isotropic_alpha_orthogonal(128) - 0.79944) < 5e-6);
  // The limit that the seed takes for every d.
  CHECK(std::fabs(tq::isotropic_alpha_gaussian(1 << 30) - 0.4875) < 5e-5);
}
