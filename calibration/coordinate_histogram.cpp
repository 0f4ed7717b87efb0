#include "calibration/coordinate_histogram.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <stdexcept>

namespace tq {

CoordinateHistogram::CoordinateHistogram(int head_dim)
    : head_dim_(head_dim),
      range_(std::min(1.0, 12 / std::sqrt(static_cast<double>(head_dim)))),
      counts_(kBins, 0) {}

void CoordinateHistogram::add(const float* coordinates, const float* norms, std::size_t rows) {
  const std::size_t d = static_cast<std::size_t>(head_dim_);
  const float offset = static_cast<float>(range_);
  const float bins_per_unit = static_cast<float>(1 / bin_width());
  std::vector<std::int32_t> bins(d);
  for (std::size_t r = 0; r < rows; ++r) {
    if (!(norms[r] > 0)) continue;
    const float* y = coordinates + r * d;
    for (std::size_t j = 0; j < d; ++j) {
      const float position =
          std::min(std::max((y[j] + offset) * bins_per_unit, 0.0f), static_cast<float>(kBins - 1));
      bins[j] = static_cast<std::int32_t>(position);
    }
    for (std::size_t j = 0; j < d; ++j) ++counts_[static_cast<std::size_t>(bins[j])];
  }
}

void CoordinateHistogram::merge(const CoordinateHistogram& other) {
  if (other.head_dim_ != head_dim_)
    throw std::invalid_argument("histograms of different head_dim do not merge");
  for (std::size_t i = 0; i < kBins; ++i) counts_[i] += other.counts_[i];
}

std::uint64_t CoordinateHistogram::samples() const {
  return std::accumulate(counts_.begin(), counts_.end(), std::uint64_t{0});
}

}  // namespace tq
