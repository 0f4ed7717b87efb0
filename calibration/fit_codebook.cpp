#include "calibration/fit_codebook.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "core/error.h"

namespace tq {
namespace {

// Mass and first moment of the histogram's density up to any point, from sums up to bin edges.
class CumulativeMoments {
 public:
  explicit CumulativeMoments(const CoordinateHistogram& histogram)
      : low_(-histogram.range()), width_(histogram.bin_width()), counts_(histogram.counts()) {
    mass_.push_back(0);
    moment_.push_back(0);
    for (std::size_t i = 0; i < counts_.size(); ++i) {
      const double count = static_cast<double>(counts_[i]);
      mass_.push_back(mass_.back() + count);
      moment_.push_back(moment_.back() + count * (edge(i) + 0.5 * width_));
    }
  }

  struct Moments {
    double mass, first;
  };
  Moments up_to(double y) const {
    const double position = std::clamp((y - low_) / width_, 0.0, static_cast<double>(counts_.size()));
    const std::size_t bin = std::min(static_cast<std::size_t>(position), counts_.size() - 1);
    const double inside = (position - static_cast<double>(bin)) * static_cast<double>(counts_[bin]);
    return {mass_[bin] + inside, moment_[bin] + inside * 0.5 * (edge(bin) + low_ + position * width_)};
  }

 private:
  double edge(std::size_t i) const { return low_ + static_cast<double>(i) * width_; }
  double low_, width_;
  const std::vector<std::uint64_t>& counts_;
  std::vector<double> mass_, moment_;
};

}  // namespace

Codebook fit_codebook(const CoordinateHistogram& histogram, int bits, std::string_view where) {
  if (histogram.samples() == 0) {
    throw InputError("{}: only zero vectors, which no {}-bit table can be fitted to; capture it again", where,
                     bits);
  }
  const CumulativeMoments moments(histogram);
  Codebook book = sphere_codebook(histogram.head_dim(), bits);
  constexpr int kMostIterations = 20000;
  constexpr double kConverged = 1e-10;
  for (int iteration = 0; iteration < kMostIterations; ++iteration) {
    double largest_move = 0;
    CumulativeMoments::Moments below{0, 0};
    for (std::size_t i = 0; i < book.centroids.size(); ++i) {
      const CumulativeMoments::Moments above = moments.up_to(book.boundaries[i + 1]);
      const double mass = above.mass - below.mass;
      if (mass > 0) {
        const double mean = (above.first - below.first) / mass;
        largest_move = std::max(largest_move, std::fabs(mean - book.centroids[i]));
        book.centroids[i] = mean;
      }
      below = above;
    }
    book.boundaries = midpoint_boundaries(book.centroids);
    if (largest_move < kConverged) break;
  }
  return book;
}

}  // namespace tq
