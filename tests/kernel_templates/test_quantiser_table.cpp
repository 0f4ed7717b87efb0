#include "kernel_templates/quantiser_table.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "core/error.h"
#include "device/quantiser.cuh"  // the device's code, on the host: on_host/device/ptx.cuh
#include "tests/support/test_seed.h"

using tq::Codebook;
using tq::Random;
using tq::gpu::Quantiser;
using tq::gpu::quantiser_table;
using tq::gpu::QuantiserTable;
using tq::test::test_random;

namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

std::vector<float> inner_boundaries(const Codebook& codebook) {
  std::vector<float> inner;
  for (std::size_t i = 1; i + 1 < codebook.boundaries.size(); ++i)
    inner.push_back(static_cast<float>(codebook.boundaries[i]));
  return inner;
}

// Every y at which a search could go wrong, and random ones.
std::vector<float> probes(const std::vector<float>& inner, Random& random) {
  const float largest = std::numeric_limits<float>::max(),
              smallest = std::numeric_limits<float>::denorm_min();
  std::vector<float> y{0.0f, -0.0f, smallest, -smallest, 1e-30f,  -1e-30f,  1.0f,      -1.0f,
                       2.0f, -2.0f, 1e10f,    -1e10f,    largest, -largest, kInfinity, -kInfinity};
  for (const float boundary : inner) {
    float below = boundary, above = boundary;
    y.push_back(boundary);
    for (int k = 0; k < 3; ++k) {
      y.push_back(below = std::nextafter(below, -kInfinity));
      y.push_back(above = std::nextafter(above, kInfinity));
    }
  }
  const float low = inner.front(), high = inner.back(), width = std::max(high - low, 1e-6f);
  for (int i = 0; i < 2000; ++i)
    y.push_back(low - width / 4 + static_cast<float>(random.uniform()) * width * 1.5f);
  for (int i = 0; i < 200; ++i) y.push_back(static_cast<float>(random.normal()));
  return y;
}

// Coordinates of the grid are float32 and lie in 0 .. 1: so near a boundary y may fall on either side.
constexpr float kGridRounding = 2e-7f;

template <int kBits>
std::size_t wrong(const Codebook& codebook, const QuantiserTable& table, Random& random) {
  using Device = Quantiser<kBits>;
  auto& storage = *reinterpret_cast<typename Device::Storage*>(tq::gpu::dynamic_shared);
  tq::gpu::threadIdx = {};
  Device::fill(storage, table);
  const std::vector<float> inner = inner_boundaries(codebook);
  std::size_t mistakes = 0;
  unsigned lane = 0;
  for (const float y : probes(inner, random)) {
    tq::gpu::threadIdx.x = lane++ % 64;  // every copy of the table
    const Device quantiser(storage, table);
    const float coordinate = quantiser.coordinate(y, table.grid_scale);
    const unsigned index = (quantiser.steps == 1 ? quantiser.template index<true>(coordinate)
                                                 : quantiser.template index<false>(coordinate));
    const auto below = [&](float at) {
      return std::count_if(inner.begin(), inner.end(), [at](float b) { return b < at; });
    };
    if (index < below(y - kGridRounding) || index > below(y + kGridRounding)) ++mistakes;
    if (index >= codebook.centroids.size()) continue;
    if (quantiser.centroid(index) != static_cast<float>(codebook.centroids[index])) ++mistakes;
  }
  // A NaN has no index; it gets the first.
  for (const float nan :
       {std::numeric_limits<float>::quiet_NaN(), -std::numeric_limits<float>::quiet_NaN()}) {
    const Device quantiser(storage, table);
    if (quantiser.template index<false>(quantiser.coordinate(nan, table.grid_scale)) != 0) ++mistakes;
  }
  return mistakes;
}

void check(const Codebook& codebook, Random& random) {
  const QuantiserTable table = quantiser_table(codebook);
  CAPTURE(codebook.bits);
  CAPTURE(table.steps);
  CHECK(std::isfinite(table.grid_scale));
  CHECK(std::isfinite(table.grid_offset));
  CHECK(table.grid_scale > 0);
  CHECK(table.steps >= 1);
  CHECK(table.base[0] == 0);
  switch (codebook.bits) {
    case 1:
      CHECK(wrong<1>(codebook, table, random) == 0);
      break;
    case 2:
      CHECK(wrong<2>(codebook, table, random) == 0);
      break;
    case 3:
      CHECK(wrong<3>(codebook, table, random) == 0);
      break;
    case 4:
      CHECK(wrong<4>(codebook, table, random) == 0);
      break;
    default:
      FAIL("no such table");
  }
}

// A table with these inner boundaries; centroids in the middle of their cells.
Codebook with_boundaries(std::vector<double> inner) {
  std::sort(inner.begin(), inner.end());
  Codebook codebook;
  codebook.boundaries = {-1.0};
  codebook.boundaries.insert(codebook.boundaries.end(), inner.begin(), inner.end());
  codebook.boundaries.push_back(1.0);
  for (std::size_t i = 0; i + 1 < codebook.boundaries.size(); ++i)
    codebook.centroids.push_back((codebook.boundaries[i] + codebook.boundaries[i + 1]) / 2);
  while (std::size_t{1} << codebook.bits < codebook.centroids.size()) ++codebook.bits;
  tq::validate(codebook, "test");
  return codebook;
}

}  // namespace

TEST_CASE("tables of the sphere: one comparison finds every index") {
  Random random = test_random(201);
  for (const int d : {64, 80, 96, 128, 192, 256}) {
    for (int bits = 1; bits <= 4; ++bits) {
      CAPTURE(d);
      const Codebook codebook = tq::sphere_codebook(d, bits);
      check(codebook, random);
      CHECK(quantiser_table(codebook).steps == 1);
    }
  }
}

TEST_CASE("tables of any shape") {
  Random random = test_random(202);
  int most_steps = 0;
  for (int round = 0; round < 300; ++round) {
    const int bits = 1 + round % 4;
    const std::size_t count = (std::size_t{1} << bits) - 1;
    std::vector<double> inner(count);
    // From nearly even to nearly all in one place, there or elsewhere.
    const double power = 1 + random.below(12), centre = 1.6 * random.uniform() - 0.8;
    for (double& b : inner) {
      const double u = 2 * random.uniform() - 1;
      b = std::clamp(centre + 0.19 * std::copysign(std::pow(std::fabs(u), power), u), -0.99, 0.99);
    }
    std::sort(inner.begin(), inner.end());
    // Boundaries differ also as float32.
    for (std::size_t i = 1; i < count; ++i) inner[i] = std::max(inner[i], inner[i - 1] + 1e-6);
    const Codebook codebook = with_boundaries(inner);
    check(codebook, random);
    most_steps = std::max(most_steps, quantiser_table(codebook).steps);
  }
  CHECK(most_steps > 1);  // or several boundaries in a cell were never tried
}

TEST_CASE("all boundaries but one crowded together") {
  Random random = test_random(203);
  for (const double far : {-0.9, 0.9}) {
    std::vector<double> inner{far};
    for (int i = 0; i < 14; ++i) inner.push_back(-0.1 + 1e-4 * i);
    const Codebook codebook = with_boundaries(inner);
    CHECK(quantiser_table(codebook).steps >= 7);  // of 14: they lie in two cells of the grid at most
    check(codebook, random);
  }
}

TEST_CASE("boundaries that are neighbours in float32, far from zero") {
  Random random = test_random(204);
  for (const int bits : {2, 3, 4}) {
    for (const float from : {0.75f, -0.75f, 1e-3f}) {
      std::vector<double> inner;
      float b = from;
      for (int i = 1; i < 1 << bits; ++i, b = std::nextafter(std::nextafter(b, 1.0f), 1.0f))
        inner.push_back(b);
      check(with_boundaries(inner), random);
    }
  }
}

TEST_CASE("boundaries closer than the reciprocal of the largest float") {
  // Strictly increasing, so a valid table; the grid's scale must not overflow.
  Random random = test_random(207);
  for (const double step : {1e-30, 1e-37, 1e-38, 1e-44}) {
    for (const double centre : {0.0, 4 * step})
      check(with_boundaries({centre - step, centre, centre + step}), random);
  }
}

TEST_CASE("a table of a single boundary, wherever it is") {
  Random random = test_random(205);
  for (const double b : {0.0, 0.5, -0.5, 0.999, 1e-9, -1e-38}) check(with_boundaries({b}), random);
}

TEST_CASE("places on the grid are the device's") {
  Random random = test_random(206);
  const QuantiserTable table = quantiser_table(tq::sphere_codebook(128, 4));
  auto& storage = *reinterpret_cast<Quantiser<4>::Storage*>(tq::gpu::dynamic_shared);
  Quantiser<4>::fill(storage, table);
  const Quantiser<4> quantiser(storage, table);
  for (const float y : probes(inner_boundaries(tq::sphere_codebook(128, 4)), random)) {
    const float coordinate = tq::gpu::grid_coordinate(table, y);
    CHECK(coordinate == quantiser.coordinate(y, table.grid_scale));
    CHECK(tq::gpu::grid_cell(coordinate) ==
          static_cast<int>(std::nearbyint(coordinate * tq::gpu::kGridSteps)));
  }
}

TEST_CASE("sums of two squares") {
  const tq::Codebook codebook = tq::sphere_codebook(64, 3);
  using Sums = tq::gpu::SquareSums<3>;
  auto& storage = *reinterpret_cast<Sums::Storage*>(tq::gpu::dynamic_shared);
  tq::gpu::threadIdx = {};
  Sums::fill(storage, quantiser_table(codebook));
  for (unsigned i = 0; i < 64; ++i) {
    tq::gpu::threadIdx.x = i % 32;
    const double a = codebook.centroids[i % 8], b = codebook.centroids[i / 8];
    CHECK(Sums(storage).of(i % 8, i / 8) == doctest::Approx(a * a + b * b).epsilon(1e-6));
  }
  tq::gpu::threadIdx = {};
}

TEST_CASE("more than four bits have no search table") {
  CHECK_THROWS_AS(quantiser_table(tq::sphere_codebook(128, 5)), tq::UsageError);
}
