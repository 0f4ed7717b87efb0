#include "experiments/language_model/rotary_embedding.h"

#include <cmath>

namespace tq {

RotaryEmbedding::RotaryEmbedding(int head_dim, double theta, std::size_t positions)
    : half_(static_cast<std::size_t>(head_dim) / 2),
      positions_(positions),
      cos_(positions * half_),
      sin_(positions * half_) {
  for (std::size_t j = 0; j < half_; ++j) {
    const auto frequency = static_cast<float>(std::pow(theta, -2.0 * static_cast<double>(j) / head_dim));
    for (std::size_t position = 0; position < positions; ++position) {
      const float angle = static_cast<float>(position) * frequency;
      cos_[position * half_ + j] = std::cos(angle);
      sin_[position * half_ + j] = std::sin(angle);
    }
  }
}

void RotaryEmbedding::apply(float* x, std::size_t heads) const {
#pragma omp parallel for schedule(static)
  for (std::size_t position = 0; position < positions_; ++position) {
    const float *cosine = &cos_[position * half_], *sine = &sin_[position * half_];
    for (std::size_t head = 0; head < heads; ++head) {
      float* first = x + (position * heads + head) * 2 * half_;
      float* second = first + half_;
      for (std::size_t j = 0; j < half_; ++j) {
        const float a = first[j], b = second[j];
        first[j] = a * cosine[j] - b * sine[j];
        second[j] = b * cosine[j] + a * sine[j];
      }
    }
  }
}

}  // namespace tq
