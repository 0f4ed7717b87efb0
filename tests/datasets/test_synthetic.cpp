#include <doctest/doctest.h>

#include <cmath>
#include <vector>

#include "core/error.h"
#include "datasets/synthetic.h"

namespace {

constexpr std::uint64_t kSeed = 20260101;
constexpr std::size_t kRows = 4000;

std::vector<float> rows_of(const tq::SyntheticSpec& spec, std::uint32_t substream = 0) {
  std::vector<float> rows(kRows * static_cast<std::size_t>(spec.head_dim));
  tq::SyntheticRows(spec, kSeed, substream).next(kRows, rows.data());
  return rows;
}

double moment(const std::vector<float>& values, int power) {
  double sum = 0;
  for (const float value : values) sum += std::pow(value, power);
  return sum / static_cast<double>(values.size());
}

// The share of |x| below `bound`.
double share_within(const std::vector<float>& values, double bound) {
  std::size_t count = 0;
  for (const float value : values) count += std::abs(value) < bound ? 1 : 0;
  return static_cast<double>(count) / static_cast<double>(values.size());
}

}  // namespace

// 512,000 draws: a mean of variance 1 is known to 0.0014, so that 5 sigma are 0.007.
TEST_CASE("the moments of each law") {
  MESSAGE("seed " << kSeed);
  tq::SyntheticSpec spec;
  const std::vector<float> gaussian = rows_of(spec);
  CHECK(std::abs(moment(gaussian, 1)) < 0.007);
  CHECK(moment(gaussian, 2) == doctest::Approx(1).epsilon(0.01));
  CHECK(moment(gaussian, 4) == doctest::Approx(3).epsilon(0.03));

  spec.distribution = tq::Distribution::laplace;
  const std::vector<float> laplace = rows_of(spec);
  CHECK(std::abs(moment(laplace, 1)) < 0.007);
  CHECK(moment(laplace, 2) == doctest::Approx(1).epsilon(0.016));
  CHECK(moment(laplace, 4) == doctest::Approx(6).epsilon(0.1));
  // P(|x| < t) = 1 - exp(-sqrt(2) t)
  CHECK(share_within(laplace, 1) == doctest::Approx(1 - std::exp(-std::sqrt(2.0))).epsilon(0.005));

  spec.distribution = tq::Distribution::student_t;
  spec.degrees_of_freedom = 3;
  const std::vector<float> student = rows_of(spec);
  // The variance of t with 3 degrees is 3, but its estimate has none: look at quantiles (1.638 is the 0.9
  // one).
  CHECK(share_within(student, 1.6377) == doctest::Approx(0.8).epsilon(0.005));
  CHECK(share_within(student, 5.8409) == doctest::Approx(0.99).epsilon(0.001));
  spec.degrees_of_freedom = 10;
  CHECK(moment(rows_of(spec), 2) == doctest::Approx(10.0 / 8).epsilon(0.015));
}

TEST_CASE("rows on the sphere have norm 1 and no direction") {
  MESSAGE("seed " << kSeed);
  tq::SyntheticSpec spec;
  spec.distribution = tq::Distribution::sphere;
  spec.head_dim = 64;
  const std::vector<float> rows = rows_of(spec);
  double worst = 0;
  for (std::size_t i = 0; i < kRows; ++i) {
    double squares = 0;
    for (std::size_t j = 0; j < 64; ++j) squares += std::pow(rows[i * 64 + j], 2);
    worst = std::max(worst, std::abs(std::sqrt(squares) - 1));
  }
  CHECK(worst < 1e-6);
  CHECK(std::abs(moment(rows, 1)) < 5 / 8.0 / std::sqrt(kRows * 64.0));
  // E x^4 = 3 / (d (d + 2))
  CHECK(moment(rows, 4) == doctest::Approx(3.0 / (64 * 66)).epsilon(0.03));
}

TEST_CASE("outliers sit in the same channels of every row") {
  MESSAGE("seed " << kSeed);
  tq::SyntheticSpec spec;
  spec.distribution = tq::Distribution::outliers;
  const std::vector<float> rows = rows_of(spec);
  for (std::size_t channel = 0; channel < 128; ++channel) {
    double squares = 0;
    for (std::size_t i = 0; i < kRows; ++i) squares += std::pow(rows[i * 128 + channel], 2);
    const bool outlier = channel == 16 || channel == 48 || channel == 80 || channel == 112;
    CAPTURE(channel);
    CHECK(std::sqrt(squares / kRows) == doctest::Approx(outlier ? 20 : 1).epsilon(0.06));
  }
}

TEST_CASE("sequences are the same whatever the blocks, and differ by substream") {
  tq::SyntheticSpec spec;
  spec.head_dim = 8;
  const std::vector<float> whole = rows_of(spec);
  std::vector<float> pieces(whole.size());
  tq::SyntheticRows rows(spec, kSeed, 0);
  for (std::size_t done = 0, step = 1; done < kRows; done += step, step = std::min(2 * step, kRows - done)) {
    rows.next(step, pieces.data() + done * 8);
  }
  CHECK(pieces == whole);
  CHECK(rows_of(spec, 1) != whole);
}

TEST_CASE("a sequence can be entered anywhere") {
  for (const tq::Distribution law :
       {tq::Distribution::gaussian, tq::Distribution::laplace, tq::Distribution::student_t,
        tq::Distribution::sphere, tq::Distribution::outliers}) {
    const tq::SyntheticSpec spec{.distribution = law, .head_dim = 7, .outlier_channels = 2};
    const std::vector<float> whole = rows_of(spec, 3);
    tq::SyntheticRows rows(spec, kSeed, 3);
    std::vector<float> part(7 * 5);
    rows.next(1, part.data());
    rows.skip(1233);
    rows.next(5, part.data());
    CHECK(part == std::vector<float>(whole.begin() + 7 * 1234, whole.begin() + 7 * 1239));
  }
}

TEST_CASE("names of the laws and their refusal") {
  for (const auto law : {tq::Distribution::gaussian, tq::Distribution::laplace, tq::Distribution::student_t,
                         tq::Distribution::sphere, tq::Distribution::outliers}) {
    CHECK(tq::parse_choice<tq::Distribution>("--distribution", tq::to_string(law)) == law);
  }
  CHECK_THROWS_WITH_AS(
      tq::parse_choice<tq::Distribution>("--distribution", "cauchy"),
      "--distribution 'cauchy' is unknown; choose one of: gaussian, laplace, student_t, sphere, outliers",
      tq::UsageError);
  tq::SyntheticSpec spec;
  spec.degrees_of_freedom = 0;
  CHECK_THROWS_AS(tq::SyntheticRows(spec, 0, 0), tq::UsageError);
  spec = {};
  spec.outlier_channels = 129;
  CHECK_THROWS_AS(tq::SyntheticRows(spec, 0, 0), tq::UsageError);
}
