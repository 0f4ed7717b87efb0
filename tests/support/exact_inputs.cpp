#include "tests/support/exact_inputs.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <utility>

namespace tq::test {

std::uint64_t ExactNumbers::bits64() {
  std::uint64_t z = state_ += 0x9e3779b97f4a7c15u;
  z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
  z = (z ^ z >> 27) * 0x94d049bb133111ebu;
  return z ^ z >> 31;
}

float ExactNumbers::bell() {
  const std::uint64_t bits = bits64();
  int sum = -131070;
  for (int shift = 0; shift < 64; shift += 16) sum += static_cast<int>(bits >> shift & 0xffff);
  return static_cast<float>(sum) * 0x1p-16f;
}

std::vector<float> exact_rows(std::uint64_t seed, std::size_t rows, std::size_t d) {
  ExactNumbers numbers(seed);
  std::vector<float> x(rows * d);
  for (std::size_t row = 0; row < rows; ++row) {
    const float size = std::ldexp(1.0f, static_cast<int>(row % 12) - 4);
    for (std::size_t j = row * d; j < (row + 1) * d; ++j) x[j] = size * numbers.bell();
    float* values = x.data() + row * d;
    if (row == 2) std::fill(values, values + d, 0.0f);
    if (row == 5) std::fill(values, values + d, 0.1f);
    if (row == 7) {
      std::fill(values, values + d, 0.0f);
      values[d / 3] = -3;
    }
    for (std::size_t j = 0; j < d; ++j) {
      if (row == 9) values[j] *= 0x1p-140f;
      if (row == 13) values[j] *= 0x1p16f;
    }
  }
  return x;
}

Codebook exact_codebook(int bits, bool midpoints) {
  const int half = 1 << (bits - 1);
  Codebook book{bits, {}, {}};
  for (int k = -half; k < half; ++k) {
    const double u = (2 * k + 1) / (2.0 * half);
    book.centroids.push_back(u * (6 + 5 * std::fabs(u)) / 32);
  }
  book.boundaries = midpoint_boundaries(book.centroids);
  if (midpoints) return book;
  for (std::size_t i = 1; i < book.centroids.size(); ++i)
    book.boundaries[i] = 0.75 * book.centroids[i - 1] + 0.25 * book.centroids[i];
  return book;
}

Rotation exact_dense_rotation(std::size_t d) {
  ExactNumbers numbers(d);
  std::vector<int> v(d);
  for (int& sign : v) sign = (numbers.bits64() & 1) != 0 ? -1 : 1;
  int root = 1;
  while (root * root < static_cast<int>(d)) root *= 2;
  std::vector<float> matrix(d * d);
  for (std::size_t i = 0; i < d; ++i) {
    const auto sylvester = [&](std::size_t j) { return std::popcount(i & j) % 2 == 0 ? 1 : -1; };
    int along = 0;
    for (std::size_t j = 0; j < d; ++j) along += sylvester(j) * v[j];
    for (std::size_t j = 0; j < d; ++j) {
      const int entry = sylvester(j) * static_cast<int>(d) - 2 * along * v[j];  // times d sqrt(d)
      matrix[i * d + j] = static_cast<float>(entry) / static_cast<float>(static_cast<int>(d) * root);
    }
  }
  return Rotation::from_matrix(std::move(matrix), 0);
}

}  // namespace tq::test
