#include <doctest/doctest.h>
#include <fmt/format.h>

#include <cmath>
#include <string>
#include <vector>

#include "core/random.h"
#include "core/rotation.h"
#include "core/sketch.h"
#include "tests/support/golden.h"

using tq::Random;
using tq::RandomStream;
using tq::Rotation;
using tq::RotationKind;
using tq::Sketch;
using tq::SketchKind;
using tq::test::ByteString;
using tq::test::GoldenDigests;

// Exports name rotations and sketches by their seed: what a seed gives may never change. `qr` is not in the
// list. Its QR factorisation is known to float32's last digits only, so artefacts carry the matrix; that it
// is the one Q with a positive diagonal of R is tested in test_rotation.cpp.

namespace {

constexpr std::uint64_t kSeeds[] = {1, 0xfedcba9876543210u};

std::string text_of(const Rotation& rht) {
  std::vector<std::int8_t> signs;
  for (const float sign : rht.signs()) signs.push_back(static_cast<std::int8_t>(sign));
  return ByteString().add(signs).add(rht.permutation()).text();
}

}  // namespace

TEST_CASE("frozen: random numbers") {
  GoldenDigests golden("random_objects");
  for (const std::uint64_t seed : kSeeds) {
    for (std::uint32_t stream = 1; stream <= 7; ++stream) {
      Random random(seed, RandomStream{stream}, 3);
      std::vector<std::uint64_t> bits;
      std::vector<double> uniform, normal;
      std::vector<std::uint32_t> below;
      for (std::uint32_t i = 0; i < 500; ++i) {
        bits.push_back(random.bits64());
        below.push_back(random.below(i + 1));
        below.push_back(random.below(0xc0000000u));
        uniform.push_back(random.uniform());
        normal.push_back(random.normal());
      }
      random.skip(1000);
      bits.push_back(random.bits64());
      golden.check(fmt::format("seed {}, random stream {}", seed, stream),
                   ByteString().add(bits).add(below).add(uniform).add(normal).text());
    }
  }
  // Far into the tails, which a few thousand numbers never see.
  std::vector<double> tails;
  for (int exponent = -1; exponent >= -1000; exponent -= 3) {
    const double p = std::ldexp(0.8125, exponent);
    tails.push_back(tq::normal_quantile(p));
    tails.push_back(tq::portable_log(p));
  }
  golden.check("normal quantiles and logarithms of small numbers", ByteString().add(tails).text());
}

TEST_CASE("frozen: rotations and sketches of a seed") {
  GoldenDigests golden("random_objects");
  for (const std::uint64_t seed : kSeeds) {
    for (const int d : {16, 40, 64, 80, 96, 112, 128, 160, 192, 256, 576, 1024}) {
      golden.check(fmt::format("seed {}, rht {}", seed, d),
                   text_of(Rotation::make(RotationKind::rht, d, seed)));
      golden.check(fmt::format("seed {}, orthogonal sketch {}", seed, d),
                   text_of(Sketch::make(SketchKind::orthogonal, d, seed).rht()));
    }
    for (const int d : {16, 80, 128}) {
      golden.check(fmt::format("seed {}, gaussian sketch {}", seed, d),
                   ByteString().add(Sketch::make(SketchKind::gaussian, d, seed).matrix()).text());
    }
  }
}

// What a seed gives includes the Hadamard matrix that goes with the signs: columns of Pi, by its definition.
TEST_CASE("frozen: Hadamard matrices") {
  GoldenDigests golden("random_objects");
  for (const int d : {16, 24, 40, 56, 72, 80, 144, 240, 576}) {
    const auto n = static_cast<std::size_t>(d);
    std::vector<std::uint16_t> identity(n);
    for (std::size_t i = 0; i < n; ++i) identity[i] = static_cast<std::uint16_t>(i);
    const Rotation rotation = Rotation::from_signs(std::vector<float>(n, 1.0f), identity, 0);
    std::vector<float> x(n * n), y(n * n);
    for (std::size_t i = 0; i < n; ++i) x[i * n + i] = 1;
    rotation.forward(x.data(), y.data(), n);
    std::vector<std::int8_t> signs;
    for (const float value : y) signs.push_back(value > 0 ? 1 : value < 0 ? -1 : 0);
    golden.check(fmt::format("Hadamard matrix {}", d), ByteString().add(signs).text());
  }
}
