#pragma once

#include <cstddef>
#include <vector>

namespace tq {

// Row-major d x d transpose. Rotations and sketches keep both so that either direction reads contiguously.
inline std::vector<float> transposed(const std::vector<float>& matrix, std::size_t d) {
  std::vector<float> result(matrix.size());
  for (std::size_t i = 0; i < d; ++i) {
    for (std::size_t j = 0; j < d; ++j) result[j * d + i] = matrix[i * d + j];
  }
  return result;
}

}  // namespace tq
