#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "core/error.h"
#include "core/sketch.h"
#include "tests/support/reference.h"
#include "tests/support/test_seed.h"

using tq::Sketch;
using tq::SketchKind;

TEST_CASE("an orthogonal sketch is sqrt(d) times a rotation with streams of its own") {
  const std::uint64_t seed = tq::test::test_seed();
  const Sketch sketch = Sketch::make(SketchKind::orthogonal, 96, seed);
  const tq::reference::Matrix s = tq::reference::dense(sketch);
  for (std::size_t i = 0; i < 96; ++i) {
    const std::span<const double> row = std::span(s.entries).subspan(i * 96, 96);
    CHECK(tq::reference::dot(row, row) == doctest::Approx(96));
  }
  // The rotation of the same seed must be another one: independent of the sketch.
  const tq::Rotation rotation = tq::Rotation::make(tq::RotationKind::rht, 96, seed);
  CHECK_FALSE(std::equal(rotation.signs().begin(), rotation.signs().end(), sketch.rht().signs().begin()));
  CHECK(sketch.matrix().empty());
}

TEST_CASE("a Gaussian sketch has iid normal entries from its stream") {
  const std::uint64_t seed = tq::test::test_seed();
  const Sketch sketch = Sketch::make(SketchKind::gaussian, 128, seed);
  REQUIRE(sketch.matrix().size() == 128 * 128);
  tq::Random random(seed, tq::RandomStream::sketch_matrix);
  int wrong = 0;
  double square = 0;
  for (std::size_t i = 0; i < 128; ++i) {
    for (std::size_t j = 0; j < 128; ++j) {
      const float entry = sketch.matrix()[i * 128 + j];
      wrong += entry != static_cast<float>(random.normal()) || entry != sketch.transposed()[j * 128 + i];
      square += static_cast<double>(entry) * static_cast<double>(entry);
    }
  }
  CHECK(wrong == 0);
  CHECK(std::fabs(square / (128 * 128) - 1) < 6 * std::sqrt(2.0 / (128 * 128)));
}

// From an implementation in Python. What a seed gives is part of every artefact that names it: these may
// never change.
TEST_CASE("the sketches of seed 1 are frozen") {
  const Sketch sketch = Sketch::make(SketchKind::orthogonal, 16, 1);
  const tq::Rotation& rht = sketch.rht();
  const float signs[] = {1, -1, 1, -1, 1, -1, 1, 1, -1, -1, -1, -1, -1, -1, 1, 1};
  const std::uint16_t permutation[] = {13, 15, 2, 7, 14, 8, 12, 0, 10, 9, 6, 4, 5, 11, 1, 3};
  CHECK(std::equal(rht.signs().begin(), rht.signs().end(), signs, signs + 16));
  CHECK(std::equal(rht.permutation().begin(), rht.permutation().end(), permutation, permutation + 16));
}

TEST_CASE("sketches are rebuilt from what an artefact carries") {
  const Sketch orthogonal = Sketch::make(SketchKind::orthogonal, 48, 3);
  const auto signs = orthogonal.rht().signs();
  const auto permutation = orthogonal.rht().permutation();
  const Sketch again =
      Sketch::from_signs({signs.begin(), signs.end()}, {permutation.begin(), permutation.end()}, 3);
  CHECK(again.kind() == SketchKind::orthogonal);
  CHECK(again.head_dim() == 48);
  CHECK(tq::reference::dense(again).entries == tq::reference::dense(orthogonal).entries);
  const Sketch gaussian = Sketch::make(SketchKind::gaussian, 48, 3);
  const std::vector<float> matrix(gaussian.matrix().begin(), gaussian.matrix().end());
  const Sketch gaussian_again = Sketch::from_matrix(matrix, 3);
  CHECK(gaussian_again.kind() == SketchKind::gaussian);
  CHECK(std::equal(matrix.begin(), matrix.end(), gaussian_again.matrix().begin()));
  CHECK(std::equal(gaussian.transposed().begin(), gaussian.transposed().end(),
                   gaussian_again.transposed().begin()));

  CHECK_THROWS_AS(Sketch::from_signs({1.0f}, {0}, 3), tq::InputError);
  CHECK_THROWS_AS(Sketch::from_matrix(std::vector<float>(100), 3), tq::InputError);
  CHECK_THROWS_AS(Sketch::from_matrix({matrix.begin(), matrix.end() - 1}, 3), tq::InputError);
  std::vector<float> bad = matrix;
  bad[100] = std::numeric_limits<float>::quiet_NaN();
  CHECK_THROWS_AS(Sketch::from_matrix(bad, 3), tq::InputError);
}

TEST_CASE("a sketch refuses a dimension that does not fit") {
  CHECK_THROWS_AS(Sketch::make(SketchKind::orthogonal, 88, 1), tq::UsageError);
  CHECK_THROWS_AS(Sketch::make(SketchKind::gaussian, 20, 1), tq::UsageError);
  CHECK_NOTHROW(Sketch::make(SketchKind::gaussian, 88, 1));
}
