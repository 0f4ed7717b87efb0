#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace tq {

// Counts of the rotated, normalised coordinates y = Pi x / ||x|| of many vectors in R^d: what a Lloyd-Max
// table is fitted to. 8192 equal bins over +-min(1, 12 / sqrt(d)), twelve standard deviations of the sphere's
// marginal; what lies outside counts in the outermost bin. Counts are integers, so merging is exact in any
// order.
class CoordinateHistogram {
 public:
  static constexpr std::size_t kBins = 8192;

  explicit CoordinateHistogram(int head_dim);

  // Rows of norm 0 are skipped. coordinates: rows x d.
  void add(const float* coordinates, const float* norms, std::size_t rows);
  // Throws std::invalid_argument when head_dim differs.
  void merge(const CoordinateHistogram& other);

  // To and from other processes (core/message.h).
  template <typename Archive>
  friend void fields(Archive& archive, CoordinateHistogram& histogram) {
    archive(histogram.head_dim_, histogram.range_, histogram.counts_);
  }

  int head_dim() const { return head_dim_; }
  double range() const { return range_; }
  double bin_width() const { return 2 * range_ / static_cast<double>(kBins); }
  std::uint64_t samples() const;
  const std::vector<std::uint64_t>& counts() const { return counts_; }

 private:
  int head_dim_;
  double range_;
  std::vector<std::uint64_t> counts_;
};

}  // namespace tq
