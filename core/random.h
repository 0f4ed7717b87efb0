#pragma once

#include <array>
#include <cstdint>

namespace tq {

// What a random number is drawn for. Every purpose has its own stream, so that using more numbers for one
// never moves another. The values are part of the format: never renumber.
enum class RandomStream : std::uint32_t {
  rotation_signs = 1,
  rotation_permutation = 2,
  rotation_matrix = 3,
  sketch_signs = 4,
  sketch_permutation = 5,
  sketch_matrix = 6,
  synthetic = 7,
};

// The project's portable generator: Philox4x32-10 (Salmon et al., SC 2011, "Parallel random numbers: as easy
// as 1, 2, 3"), key = seed, counter = (block index 64 bits, substream 32 bits, stream 32 bits). The same seed
// gives the same numbers on every machine: integer arithmetic, and for the normal only IEEE +, -, *, / and
// sqrt.
class Random {
 public:
  // `substream` splits one purpose further (a layer, a row, a repetition).
  Random(std::uint64_t seed, RandomStream stream, std::uint32_t substream = 0);

  std::uint32_t bits32();
  std::uint64_t bits64();
  // Leaves out `words` results of bits32(), in constant time.
  void skip(std::uint64_t words);

  // Uniform in the open interval (0, 1): (k + 1/2) / 2^52 with 52 random bits k, which a double holds exactly
  // (with 53 bits the largest would round to 1).
  double uniform();

  // Uniform in [0, bound), bound > 0, without modulo bias (Lemire, ACM TOMACS 2019).
  std::uint32_t below(std::uint32_t bound);

  // N(0, 1) by inversion: Wichura's AS 241 (PPND16), relative accuracy about 1e-16. One uniform a value.
  double normal();

 private:
  std::array<std::uint32_t, 2> key_;
  std::array<std::uint32_t, 4> counter_;
  std::array<std::uint32_t, 4> block_{};
  unsigned used_ = 4;
};

// Natural logarithm of a positive normal number from IEEE basic operations alone (error below 2 ulp):
// std::log differs between C libraries.
double portable_log(double x);

// Inverse of the standard normal distribution function, 0 < p < 1 (AS 241).
double normal_quantile(double p);

}  // namespace tq
