#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "core/error.h"
#include "core/rotation.h"
#include "tests/support/reference.h"
#include "tests/support/test_seed.h"

using tq::Rotation;
using tq::RotationKind;
using tq::reference::Matrix;
using tq::reference::Vector;
using tq::test::normal_values;
using tq::test::test_random;

namespace {

// Forward against the dense float64 definition, the inverse, and the norm, on a few rows.
void check_rotation(const Rotation& rotation, tq::Random& random) {
  const auto d = static_cast<std::size_t>(rotation.head_dim());
  const std::size_t rows = 3;
  const std::vector<float> x = normal_values(random, rows * d);
  std::vector<float> y(x.size()), back(x.size());
  rotation.forward(x.data(), y.data(), rows);
  rotation.inverse(y.data(), back.data(), rows);
  const Matrix dense = tq::reference::dense(rotation);
  double forward_error = 0, inverse_error = 0, norm_error = 0;
  for (std::size_t r = 0; r < rows; ++r) {
    const Vector in = tq::reference::widen({&x[r * d], d}), out = tq::reference::widen({&y[r * d], d});
    forward_error =
        std::max(forward_error, tq::reference::relative_error(out, tq::reference::multiply(dense, in)));
    inverse_error =
        std::max(inverse_error, tq::reference::relative_error(tq::reference::widen({&back[r * d], d}), in));
    norm_error = std::max(norm_error, std::fabs(tq::reference::norm(out) / tq::reference::norm(in) - 1));
  }
  CHECK(forward_error < 1e-6);
  CHECK(inverse_error < 1e-6);
  CHECK(norm_error < 1e-6);
}

// max |M M^T - I| over pairs of rows; every pair for small d, neighbours and strides for large.
double orthogonality_error(const Matrix& m) {
  double worst = 0;
  const std::size_t step = m.order > 128 ? m.order / 16 - 1 : 1;
  for (std::size_t i = 0; i < m.order; ++i) {
    for (std::size_t j = i; j < m.order; j += step) {
      const std::span<const double> all(m.entries);
      const double product =
          tq::reference::dot(all.subspan(i * m.order, m.order), all.subspan(j * m.order, m.order));
      worst = std::max(worst, std::fabs(product - (i == j ? 1 : 0)));
    }
  }
  return worst;
}

std::vector<float> floats(std::span<const float> values) { return {values.begin(), values.end()}; }
std::vector<std::uint16_t> shorts(std::span<const std::uint16_t> values) {
  return {values.begin(), values.end()};
}

bool same_map(const Rotation& a, const Rotation& b, tq::Random& random) {
  const std::vector<float> x = normal_values(random, 5 * static_cast<std::size_t>(a.head_dim()));
  std::vector<float> of_a(x.size()), of_b(x.size()), inverse_a(x.size()), inverse_b(x.size());
  a.forward(x.data(), of_a.data(), 5);
  b.forward(x.data(), of_b.data(), 5);
  a.inverse(x.data(), inverse_a.data(), 5);
  b.inverse(x.data(), inverse_b.data(), 5);
  return of_a == of_b && inverse_a == inverse_b;
}

}  // namespace

TEST_CASE("rht is P H D / sqrt(d) for every order that exists") {
  tq::Random random = test_random(20);
  for (int d = 16; d <= 1024; d += 8) {
    CAPTURE(d);
    if (!tq::hadamard_supported(d)) {
      CHECK_THROWS_AS(Rotation::make(RotationKind::rht, d, 1), tq::UsageError);
      continue;
    }
    const Rotation rotation = Rotation::make(RotationKind::rht, d, random.bits64());
    CHECK(rotation.signs().size() == static_cast<std::size_t>(d));
    CHECK(rotation.permutation().size() == static_cast<std::size_t>(d));
    CHECK(rotation.matrix().empty());
    check_rotation(rotation, random);
  }
}

TEST_CASE("qr works for multiples of 8, also where no Hadamard matrix exists") {
  tq::Random random = test_random(21);
  std::vector<int> dims;
  for (int d = 16; d <= 256; d += 8) dims.push_back(d);
  // The cost of a QR factorisation grows with d^3.
  for (const int d : {344, 576, 1000, 1024}) dims.push_back(d);
  for (const int d : dims) {
    CAPTURE(d);
    const Rotation rotation = Rotation::make(RotationKind::qr, d, random.bits64());
    CHECK(rotation.signs().empty());
    check_rotation(rotation, random);
    CHECK(orthogonality_error(tq::reference::dense(rotation)) < 1e-6);
  }
}

TEST_CASE("qr is Q of the documented Gaussian matrix with a positive diagonal of R") {
  for (const int head_dim : {16, 40, 128}) {
    CAPTURE(head_dim);
    const auto d = static_cast<std::size_t>(head_dim);
    const std::uint64_t seed = tq::test::test_seed() + 7;
    const Matrix q = tq::reference::dense(Rotation::make(RotationKind::qr, head_dim, seed));
    tq::Random random(seed, tq::RandomStream::rotation_matrix);
    Matrix gaussian(d);
    for (double& entry : gaussian.entries) entry = random.normal();
    double below = 0, smallest_diagonal = std::numeric_limits<double>::infinity();
    for (std::size_t j = 0; j < d; ++j) {
      Vector column(d);
      for (std::size_t i = 0; i < d; ++i) column[i] = gaussian.at(i, j);
      const Vector r = tq::reference::multiply_transposed(q, column);
      smallest_diagonal = std::min(smallest_diagonal, r[j]);
      for (std::size_t i = j + 1; i < d; ++i) below = std::max(below, std::fabs(r[i]));
    }
    CHECK(smallest_diagonal > 0);
    CHECK(below < 1e-5);
  }
}

TEST_CASE("signs and permutations come from their documented streams") {
  const std::uint64_t seed = tq::test::test_seed() + 8;
  const Rotation rotation = Rotation::make(RotationKind::rht, 96, seed);
  std::vector<std::uint16_t> sorted = shorts(rotation.permutation());
  std::sort(sorted.begin(), sorted.end());
  for (std::size_t i = 0; i < sorted.size(); ++i) CHECK(sorted[i] == i);
  CHECK(rotation.seed() == seed);
  CHECK(floats(rotation.signs()) == floats(Rotation::make(RotationKind::rht, 96, seed).signs()));
  CHECK(floats(rotation.signs()) != floats(Rotation::make(RotationKind::rht, 96, seed + 1).signs()));
}

// From an implementation in Python. What a seed gives is part of every artefact that names it: these may
// never change.
TEST_CASE("the objects of seed 1 are frozen") {
  const Rotation rht = Rotation::make(RotationKind::rht, 16, 1);
  CHECK(floats(rht.signs()) == std::vector<float>{1, 1, 1, 1, 1, -1, 1, -1, 1, -1, -1, 1, -1, 1, 1, -1});
  CHECK(shorts(rht.permutation()) ==
        std::vector<std::uint16_t>{0, 12, 9, 10, 4, 5, 7, 8, 1, 11, 13, 15, 14, 3, 6, 2});
}

TEST_CASE("stored bytes") {
  CHECK(Rotation::make(RotationKind::rht, 128, 1).stored_bytes() == 272);
  CHECK(Rotation::make(RotationKind::qr, 128, 1).stored_bytes() == 65536);
}

TEST_CASE("a head dimension that does not fit is refused") {
  for (const RotationKind kind : {RotationKind::qr, RotationKind::rht}) {
    for (const int d : {-8, 0, 8, 12, 15, 17, 100, 1032, 4096}) {
      CAPTURE(d);
      CHECK_THROWS_AS(Rotation::make(kind, d, 1), tq::UsageError);
    }
  }
  try {
    Rotation::make(RotationKind::rht, 104, 1);
    FAIL("104 has no Hadamard matrix");
  } catch (const tq::UsageError& error) {
    const std::string message = error.what();
    CHECK(message.find("96 and 112") != std::string::npos);
    CHECK(message.find("--rotation qr") != std::string::npos);
  }
}

TEST_CASE("from_signs rebuilds the map and refuses what is not one") {
  tq::Random random = test_random(22);
  const Rotation original = Rotation::make(RotationKind::rht, 80, random.bits64());
  const std::vector<float> signs = floats(original.signs());
  const std::vector<std::uint16_t> permutation = shorts(original.permutation());
  const Rotation rebuilt = Rotation::from_signs(signs, permutation, 5);
  CHECK(rebuilt.kind() == RotationKind::rht);
  CHECK(rebuilt.head_dim() == 80);
  CHECK(rebuilt.seed() == 5);
  CHECK(same_map(original, rebuilt, random));

  const auto refused = [](std::vector<float> s, std::vector<std::uint16_t> p) {
    CHECK_THROWS_AS(Rotation::from_signs(std::move(s), std::move(p), 5), tq::InputError);
  };
  refused({}, {});
  refused({signs.begin(), signs.end() - 8}, {permutation.begin(), permutation.end() - 8});
  refused(signs, {permutation.begin(), permutation.end() - 1});
  refused(std::vector<float>(88, 1.0f), std::vector<std::uint16_t>(88));
  std::vector<float> bad_signs = signs;
  for (const float bad : {0.0f, 0.5f, std::numeric_limits<float>::quiet_NaN()}) {
    bad_signs[17] = bad;
    refused(bad_signs, permutation);
  }
  std::vector<std::uint16_t> bad_permutation = permutation;
  bad_permutation[3] = bad_permutation[4];
  refused(signs, bad_permutation);
  bad_permutation[3] = 80;
  refused(signs, bad_permutation);
}

TEST_CASE("from_matrix rebuilds the map and refuses what is not orthogonal") {
  tq::Random random = test_random(23);
  const Rotation original = Rotation::make(RotationKind::qr, 40, random.bits64());
  const std::vector<float> matrix = floats(original.matrix());
  const Rotation rebuilt = Rotation::from_matrix(matrix, 5);
  CHECK(rebuilt.kind() == RotationKind::qr);
  CHECK(rebuilt.seed() == 5);
  CHECK(same_map(original, rebuilt, random));

  const auto refused = [](std::vector<float> m) {
    CHECK_THROWS_AS(Rotation::from_matrix(std::move(m), 5), tq::InputError);
  };
  refused({});
  refused({matrix.begin(), matrix.end() - 1});
  refused(std::vector<float>(12 * 12, 0.0f));
  refused(std::vector<float>(40 * 40, 0.0f));
  for (const float damage :
       {1.0f, 1e-3f, std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    // Any place: an error must not depend on which entries a maximum happens to compare.
    for (const std::size_t place : {std::size_t{0}, std::size_t{5 * 40 + 3}, matrix.size() - 1}) {
      CAPTURE(damage);
      CAPTURE(place);
      std::vector<float> bad = matrix;
      bad[place] += damage;
      refused(bad);
    }
  }
}
