#include <doctest/doctest.h>

#include <array>
#include <boost/math/distributions/normal.hpp>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "core/random.h"
#include "tests/support/reference.h"
#include "tests/support/test_seed.h"

using tq::Random;
using tq::RandomStream;
using tq::test::test_random;

namespace {

std::vector<std::uint32_t> first(Random random, std::size_t count) {
  std::vector<std::uint32_t> numbers(count);
  for (std::uint32_t& number : numbers) number = random.bits32();
  return numbers;
}

double ulps(double value, double exact) {
  const double next = std::nextafter(std::fabs(exact), std::numeric_limits<double>::infinity());
  return std::fabs(value - exact) / (next - std::fabs(exact));
}

}  // namespace

TEST_CASE("the reference Philox4x32-10 gives the known answers of the Random123 distribution") {
  using Block = std::vector<std::uint32_t>;
  constexpr std::uint32_t kOnes = 0xffffffffu;
  CHECK(tq::reference::philox4x32_10({0, 0, 0, 0}, {0, 0}) ==
        Block{0x6627e8d5u, 0xe169c58du, 0xbc57ac4cu, 0x9b00dbd8u});
  CHECK(tq::reference::philox4x32_10({kOnes, kOnes, kOnes, kOnes}, {kOnes, kOnes}) ==
        Block{0x408f276du, 0x41c83b0eu, 0xa20bc7c6u, 0x6d5451fdu});
  CHECK(tq::reference::philox4x32_10({0x243f6a88u, 0x85a308d3u, 0x13198a2eu, 0x03707344u},
                                     {0xa4093822u, 0x299f31d0u}) ==
        Block{0xd16cfe09u, 0x94fdccebu, 0x5001e420u, 0x24126ea1u});
}

TEST_CASE("Random is Philox with the seed as key and (block, substream, stream) as counter") {
  CHECK(first(Random(0, RandomStream{0}), 4) ==
        std::vector<std::uint32_t>{0x6627e8d5u, 0xe169c58du, 0xbc57ac4cu, 0x9b00dbd8u});
  Random draws = test_random(1);
  for (int repeat = 0; repeat < 20; ++repeat) {
    const std::uint64_t seed = draws.bits64();
    const std::uint32_t stream = draws.below(8), substream = draws.bits32();
    const std::vector<std::uint32_t> numbers = first(Random(seed, RandomStream{stream}, substream), 40);
    for (std::uint32_t block = 0; block < 10; ++block) {
      const auto expected = tq::reference::philox4x32_10(
          {block, 0, substream, stream},
          {static_cast<std::uint32_t>(seed), static_cast<std::uint32_t>(seed >> 32)});
      const auto begin = numbers.begin() + 4 * block;
      CHECK(std::vector<std::uint32_t>(begin, begin + 4) == expected);
    }
  }
}

// From an implementation in Python, itself checked against the known answers above. Artefacts hold seeds, so
// these numbers may never change.
TEST_CASE("the first numbers of every stream are frozen") {
  constexpr std::uint64_t kSeed = 0x0123456789abcdefu;
  const std::array<std::array<std::uint32_t, 4>, 7> block0{{
      {0xd0e1fe69u, 0xfee38b5fu, 0xe81334eeu, 0x6ad4edf0u},
      {0x46c5fd35u, 0x5f6468e3u, 0xa253a1cdu, 0x767e3b04u},
      {0x68c75025u, 0x85b33088u, 0x48508655u, 0x0de586ccu},
      {0x3904b88fu, 0x745dcd15u, 0x7a93f30au, 0x4a7b09b2u},
      {0xa4a66dd2u, 0x51ea8b2fu, 0xad28aa90u, 0xca08650au},
      {0xe8fe33aau, 0xa35f6cfbu, 0x70da3b8fu, 0x2a8da09cu},
      {0x8314307cu, 0x00318c62u, 0xa13034f2u, 0xdc1a7191u},
  }};
  const std::array<std::array<std::uint32_t, 4>, 7> block1_of_substream5{{
      {0x0d992365u, 0x3778de19u, 0xf14c1401u, 0x1e90b0a5u},
      {0x0dd85e9eu, 0x56eb980au, 0xc01aee70u, 0xff71863cu},
      {0xd156ee4du, 0x4626adbeu, 0x4fbc8fe2u, 0x3aa56be6u},
      {0xdf71949au, 0xa1952250u, 0x4ae92020u, 0x56f5bf0bu},
      {0x6c9f7012u, 0xb6177d7cu, 0x256c1a28u, 0xb4a5a61eu},
      {0x524cf8c7u, 0x5bdd2e25u, 0x492e09cbu, 0xc741ef50u},
      {0xc3c3681bu, 0xc925e231u, 0xd23b4139u, 0xd9d228a1u},
  }};
  const RandomStream streams[7] = {RandomStream::rotation_signs,     RandomStream::rotation_permutation,
                                   RandomStream::rotation_matrix,    RandomStream::sketch_signs,
                                   RandomStream::sketch_permutation, RandomStream::sketch_matrix,
                                   RandomStream::synthetic};
  for (std::size_t s = 0; s < 7; ++s) {
    CAPTURE(s);
    const auto numbers = first(Random(kSeed, streams[s]), 4);
    CHECK(std::equal(numbers.begin(), numbers.end(), block0[s].begin()));
    const auto later = first(Random(kSeed, streams[s], 5), 8);
    CHECK(std::equal(later.begin() + 4, later.end(), block1_of_substream5[s].begin()));
  }
}

TEST_CASE("uniform numbers are frozen, and exact multiples of 2^-53 inside (0, 1)") {
  Random random(0, RandomStream::synthetic);
  for (const double expected :
       {0x1.1b2cb3885c400p-11, 0x1.54a86d8839ae0p-6, 0x1.50d00e5a659bdp-1, 0x1.a4b1093bb3b54p-3}) {
    CHECK(random.uniform() == expected);
  }
}

TEST_CASE("normal numbers are the quantiles of the uniform ones") {
  Random normals(1, RandomStream::rotation_matrix);
  for (const double expected : {0.44668885125660446, 0.758681200783752, -0.14040860651633605}) {
    CHECK(normals.normal() == doctest::Approx(expected).epsilon(1e-14));
  }
}

TEST_CASE("bits64 takes the low half first") {
  Random halves(3, RandomStream::synthetic), whole(3, RandomStream::synthetic);
  const std::uint64_t low = halves.bits32(), high = halves.bits32();
  CHECK(whole.bits64() == (low | high << 32));
}

TEST_CASE("skip leaves out what would have come") {
  const std::vector<std::uint32_t> numbers = first(Random(7, RandomStream::synthetic), 60);
  for (std::size_t before = 0; before < 10; ++before) {
    for (std::size_t skipped = 0; skipped < 40; ++skipped) {
      Random random(7, RandomStream::synthetic);
      for (std::size_t i = 0; i < before; ++i) random.bits32();
      random.skip(skipped);
      CHECK(first(random, 9) ==
            std::vector<std::uint32_t>(numbers.begin() + static_cast<std::ptrdiff_t>(before + skipped),
                                       numbers.begin() + static_cast<std::ptrdiff_t>(before + skipped + 9)));
    }
  }
  // The block index carries into its upper half: block 2^32 + 1, word 2.
  Random random(7, RandomStream::synthetic);
  random.skip(3);
  random.skip((std::uint64_t{4} << 32) + 3);
  const std::uint32_t stream = static_cast<std::uint32_t>(RandomStream::synthetic);
  CHECK(random.bits32() == tq::reference::philox4x32_10({1, 1, 0, stream}, {7, 0})[2]);
}

TEST_CASE("uniform and normal numbers have their moments") {
  constexpr int kCount = 400000;
  Random uniforms = test_random(2), normals = test_random(3);
  double sum = 0, square = 0, normal_power[5] = {};
  for (int i = 0; i < kCount; ++i) {
    const double u = uniforms.uniform();
    sum += u;
    square += u * u;
    const double z = normals.normal();
    double power = 1;
    for (double& total : normal_power) {
      total += power;
      power *= z;
    }
  }
  // Six standard errors of each mean.
  const double six = 6 / std::sqrt(static_cast<double>(kCount));
  CHECK(std::fabs(sum / kCount - 0.5) < six * std::sqrt(1.0 / 12));
  CHECK(std::fabs(square / kCount - 1.0 / 3) < six * std::sqrt(4.0 / 45));
  CHECK(std::fabs(normal_power[1] / kCount) < six);
  CHECK(std::fabs(normal_power[2] / kCount - 1) < six * std::sqrt(2.0));
  CHECK(std::fabs(normal_power[3] / kCount) < six * std::sqrt(15.0));
  CHECK(std::fabs(normal_power[4] / kCount - 3) < six * std::sqrt(96.0));
}

TEST_CASE("below is uniform and never reaches its bound") {
  for (const std::uint32_t bound : {1u, 2u, 3u, 7u, 36u, 1000u}) {
    CAPTURE(bound);
    Random random = test_random(100 + bound);
    const std::uint32_t count = 200 * bound;
    std::vector<int> seen(bound);
    bool in_range = true;
    for (std::uint32_t i = 0; i < count; ++i) {
      const std::uint32_t number = random.below(bound);
      in_range = in_range && number < bound;
      if (number < bound) ++seen[number];
    }
    CHECK(in_range);
    double chi_square = 0;
    for (const int n : seen) chi_square += (n - 200.0) * (n - 200.0) / 200;
    // Mean bound - 1, variance 2 (bound - 1).
    CHECK(chi_square < bound + 8 * std::sqrt(2.0 * bound) + 8);
  }
  // A bound above 2^31 rejects up to half of the draws.
  Random random = test_random(4);
  constexpr std::uint32_t kHuge = 0xc0000000u;
  int upper = 0;
  for (int i = 0; i < 30000; ++i) {
    const std::uint32_t number = random.below(kHuge);
    REQUIRE(number < kHuge);
    upper += number >= 0x80000000u;
  }
  CHECK(std::fabs(upper / 30000.0 - 1.0 / 3) < 0.02);
}

TEST_CASE("normal_quantile inverts the normal distribution") {
  CHECK(tq::normal_quantile(0.5) == 0);
  CHECK(tq::normal_quantile(0.975) == doctest::Approx(1.959963984540054).epsilon(1e-15));
  CHECK(tq::normal_quantile(0.995) == doctest::Approx(2.5758293035489004).epsilon(1e-15));
  CHECK(tq::normal_quantile(1e-10) == doctest::Approx(-6.361340902404056).epsilon(1e-15));
  CHECK(tq::normal_quantile(1e-300) == doctest::Approx(-37.0471).epsilon(1e-6));
  Random random = test_random(5);
  const boost::math::normal standard;
  double worst = 0;
  for (int i = 0; i < 20000; ++i) {
    const double p =
        i % 2 == 0 ? random.uniform() : std::ldexp(random.uniform(), -static_cast<int>(random.below(200)));
    const double exact = boost::math::quantile(standard, p);
    worst = std::max(worst, std::fabs(tq::normal_quantile(p) - exact) / (std::fabs(exact) + 1e-3));
  }
  CHECK(worst < 2e-15);
}

TEST_CASE("the extreme uniforms have finite quantiles of opposite sign") {
  CHECK(tq::normal_quantile(0x1p-53) == doctest::Approx(-8.2095).epsilon(1e-4));
  CHECK(tq::normal_quantile(1 - 0x1p-53) == -tq::normal_quantile(0x1p-53));
}

TEST_CASE("portable_log is within 2 ulp of log") {
  CHECK(tq::portable_log(1) == 0);
  Random random = test_random(6);
  double worst = 0, worst_at = 0;
  const auto check = [&](double x) {
    const long double exact = std::log(static_cast<long double>(x));
    const double error = ulps(tq::portable_log(x), static_cast<double>(exact));
    if (error > worst) {
      worst = error;
      worst_at = x;
    }
  };
  for (int i = 0; i < 200000; ++i) {
    check(random.uniform());
    check(1 + random.uniform());
    check(1 + (random.uniform() - 0.5) * 0x1p-10);
    check(std::ldexp(1 + random.uniform(), static_cast<int>(random.below(2000)) - 1000));
  }
  CAPTURE(worst_at);
  CHECK(worst <= 2);
}
