#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "calibration/exact_sum.h"
#include "tests/support/test_seed.h"

using tq::ExactSum;

namespace {

double sum_of(const std::vector<double>& values) {
  ExactSum sum;
  for (const double value : values) sum.add(value);
  return sum.value();
}

}  // namespace

TEST_CASE("an exact sum loses nothing to cancellation") {
  CHECK(sum_of({}) == 0);
  CHECK(sum_of({1e100, 1.0, -1e100}) == 1.0);
  CHECK(sum_of({0x1p60, 0x1p-60, -0x1p60}) == 0x1p-60);
  CHECK(sum_of({-1.5, -2.25}) == -3.75);
  CHECK(sum_of({1e-140, -1e140, 1e140, 1e-140}) == 2e-140);
  CHECK(sum_of(std::vector<double>(1000, 0.1)) == doctest::Approx(100).epsilon(1e-15));
}

TEST_CASE("an exact sum depends on neither order nor grouping, bit for bit") {
  tq::Random random = tq::test::test_random(901);
  std::vector<double> values;
  for (int i = 0; i < 5000; ++i)
    values.push_back(random.normal() * std::exp2(static_cast<double>(random.below(200)) - 100));
  const double whole = sum_of(values);
  long double reference = 0;
  for (const double value : values) reference += static_cast<long double>(value);
  CHECK(whole == doctest::Approx(static_cast<double>(reference)).epsilon(1e-12));

  std::vector<double> reversed(values.rbegin(), values.rend());
  CHECK(sum_of(reversed) == whole);
  for (const std::size_t pieces : {2u, 7u, 100u}) {
    std::vector<ExactSum> parts(pieces);
    for (std::size_t i = 0; i < values.size(); ++i) parts[i * 31 % pieces].add(values[i]);
    ExactSum left, right;
    for (std::size_t i = 0; i < pieces; ++i) left.merge(parts[i]);
    for (std::size_t i = pieces; i-- > 0;) right.merge(parts[i]);
    CHECK(left.value() == whole);
    CHECK(right.value() == whole);
  }
}
