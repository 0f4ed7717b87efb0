#include "calibration/residual_statistics.h"

#include <algorithm>

namespace tq {
namespace {

// SplitMix64's finaliser: a fixed, well mixed order of rows.
std::uint64_t mix(std::uint64_t x) {
  x += 0x9e3779b97f4a7c15u;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

}  // namespace

void ResidualStatistics::add(const ResidualProducts& products, std::uint64_t row) {
  if (!(products.norm > 0) || !(products.residual_norm > 0)) return;  // nothing to reconstruct
  ++rows_;
  const double square = static_cast<double>(products.norm) * static_cast<double>(products.norm);
  const double residual_norm = static_cast<double>(products.residual_norm);
  projected_.add(square * residual_norm * static_cast<double>(products.rg));
  energy_.add(square * residual_norm * residual_norm * static_cast<double>(products.gg));
  sample_.push_back({mix(row), products});
  if (sample_.size() >= 2 * kSample) shrink_sample();
}

void ResidualStatistics::add_scores(double ab, double bb) {
  score_projected_.add(ab);
  score_energy_.add(bb);
}

void ResidualStatistics::merge(const ResidualStatistics& other) {
  rows_ += other.rows_;
  projected_.merge(other.projected_);
  energy_.merge(other.energy_);
  score_projected_.merge(other.score_projected_);
  score_energy_.merge(other.score_energy_);
  sample_.insert(sample_.end(), other.sample_.begin(), other.sample_.end());
  if (sample_.size() >= 2 * kSample) shrink_sample();
}

void ResidualStatistics::shrink_sample() {
  const auto less = [](const Sampled& a, const Sampled& b) { return a.hash < b.hash; };
  std::nth_element(sample_.begin(), sample_.begin() + kSample, sample_.end(), less);
  sample_.resize(kSample);
}

std::vector<ResidualProducts> ResidualStatistics::sample() const {
  std::vector<Sampled> sorted = sample_;
  std::sort(sorted.begin(), sorted.end(), [](const Sampled& a, const Sampled& b) { return a.hash < b.hash; });
  if (sorted.size() > kSample) sorted.resize(kSample);
  std::vector<ResidualProducts> products;
  for (const Sampled& entry : sorted) products.push_back(entry.products);
  return products;
}

}  // namespace tq
