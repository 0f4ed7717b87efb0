#include "experiments/bench/float64_attention.h"

#include <algorithm>
#include <cmath>

namespace tq::bench {

namespace {

constexpr double kLeast = -1e300;  // below every score; not infinite, so that differences are numbers

}  // namespace

Float64Attention::Float64Attention(std::span<const float> queries, std::size_t d, double softmax_scale)
    : d_(d),
      count_(queries.size() / d),
      queries_(queries.size()),
      scores_(count_),
      maximum_(count_, kLeast),
      sum_(count_, 0.0),
      out_(queries.size(), 0.0) {
  for (std::size_t g = 0; g < count_; ++g) {
    for (std::size_t j = 0; j < d; ++j)
      queries_[j * count_ + g] = softmax_scale * static_cast<double>(queries[g * d + j]);
  }
}

void Float64Attention::rescale(std::size_t query, double maximum) {
  const double factor = std::exp(maximum_[query] - maximum);
  maximum_[query] = maximum;
  sum_[query] *= factor;
  for (std::size_t j = 0; j < d_; ++j) out_[query * d_ + j] *= factor;
}

void Float64Attention::add(const float* k, const float* v, std::size_t rows) {
  for (std::size_t t = 0; t < rows; ++t) {
    std::fill(scores_.begin(), scores_.end(), 0.0);
    for (std::size_t j = 0; j < d_; ++j) {
      const double x = static_cast<double>(k[t * d_ + j]);
      for (std::size_t g = 0; g < count_; ++g) scores_[g] += x * queries_[j * count_ + g];
    }
    for (std::size_t g = 0; g < count_; ++g) {
      if (scores_[g] > maximum_[g]) rescale(g, scores_[g]);
      const double weight = std::exp(scores_[g] - maximum_[g]);
      sum_[g] += weight;
      double* out = out_.data() + g * d_;
      for (std::size_t j = 0; j < d_; ++j) out[j] += weight * static_cast<double>(v[t * d_ + j]);
    }
  }
}

void Float64Attention::merge(const Float64Attention& other) {
  for (std::size_t g = 0; g < count_; ++g) {
    if (other.maximum_[g] > maximum_[g]) rescale(g, other.maximum_[g]);
    const double factor = std::exp(other.maximum_[g] - maximum_[g]);
    sum_[g] += factor * other.sum_[g];
    for (std::size_t j = 0; j < d_; ++j) out_[g * d_ + j] += factor * other.out_[g * d_ + j];
  }
}

std::vector<double> Float64Attention::result() const {
  std::vector<double> result = out_;
  for (std::size_t i = 0; i < result.size(); ++i) result[i] /= sum_[i / d_];
  return result;
}

}  // namespace tq::bench
