#include "experiments/language_model/rms_norm.h"

#include <array>
#include <cmath>

namespace tq {

void rms_norm(const float* x, std::size_t rows, const std::vector<float>& weight, double eps, float* out) {
  const std::size_t width = weight.size();
#pragma omp parallel for schedule(static)
  for (std::size_t i = 0; i < rows; ++i) {
    const float* row = x + i * width;
    std::array<double, 8> squares{};  // so that no addition waits for the one before
    for (std::size_t j = 0; j < width; ++j) squares[j % 8] += static_cast<double>(row[j]) * row[j];
    double sum = 0;
    for (const double part : squares) sum += part;
    const auto factor = static_cast<float>(1 / std::sqrt(sum / static_cast<double>(width) + eps));
    for (std::size_t j = 0; j < width; ++j) out[i * width + j] = row[j] * factor * weight[j];
  }
}

}  // namespace tq
