#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "core/codebook.h"
#include "core/rotation.h"

// Inputs by integer arithmetic, the same on every machine whatever its C library.
namespace tq::test {

// SplitMix64 (Steele, Lea and Flood, OOPSLA 2014): not the generator of core/random.h, which is frozen
// itself.
class ExactNumbers {
 public:
  explicit ExactNumbers(std::uint64_t seed) : state_(seed) {}
  std::uint64_t bits64();
  // A whole number of [-131070, 131070], bell-shaped, times 2^-16: its deviation is about 0.58.
  float bell();

 private:
  std::uint64_t state_;
};

// rows x d. Rows of many sizes; among them, where there are so many rows, a zero, a constant, a one-hot, a
// denormal and a huge row.
std::vector<float> exact_rows(std::uint64_t seed, std::size_t rows, std::size_t d);
// Centroids u (6 + 5 u) / 32 and their negatives, u odd multiples of 2^-bits: floats without rounding. Suits
// head dimensions around 64. `midpoints` false: boundaries a quarter of the way instead.
Codebook exact_codebook(int bits, bool midpoints = true);
// H (I - v v^T 2 / d) / sqrt(d), H Sylvester's matrix and v random signs: every entry a float without
// rounding, for d a power of 4 up to 256.
Rotation exact_dense_rotation(std::size_t d);

}  // namespace tq::test
