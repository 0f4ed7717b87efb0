#include "core/head_attention.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace tq {

HeadAttention::HeadAttention(const float* q, std::size_t count, std::size_t d, float softmax_scale)
    : q_(q),
      count_(count),
      d_(d),
      scale_(softmax_scale),
      softmax_(count),
      broken_(count),
      exact_sum_(count * d),
      code_sum_(count * d),
      rows_(kMaxRun * d),
      scores_(count * kMaxRun) {}

void HeadAttention::add_rows(const float* keys, const float* values, std::size_t rows,
                             std::span<const TokenRange> seen, std::size_t first) {
  dense_scores(q_, count_, keys, rows, d_, scores_.data());
  weigh(rows, seen, first);
  accumulate_weighted_rows(scores_.data(), count_, rows, values, rows, d_, exact_sum_.data());
}

void HeadAttention::add_codes(const KeyCodec& keys, const PreparedQueries& prepared,
                              const ConstKeyBlock& key_block, const ValueCodec& values,
                              const ConstValueBlock& value_block, std::size_t rows,
                              std::span<const TokenRange> seen, std::size_t first) {
  keys.score_block(prepared, key_block, rows, rows, scores_.data());
  weigh(rows, seen, first);
  values.decode_block(value_block, rows, rows_.data());
  rotated_values_ = values.rotated();
  accumulate_weighted_rows(scores_.data(), count_, rows, rows_.data(), rows, d_, code_sum_.data());
}

// Turns the run's scores into weights, and what earlier runs left into sums under the new maximum.
void HeadAttention::weigh(std::size_t rows, std::span<const TokenRange> seen, std::size_t first) {
  for (std::size_t i = 0; i < count_; ++i) {
    float* scores = &scores_[i * rows];
    TokenRange range{0, rows};
    if (!seen.empty()) {
      range.end = std::min(std::max(seen[i].end, first) - first, rows);
      range.begin = std::min(std::max(seen[i].begin, first) - first, range.end);
    }
    std::fill(scores, scores + range.begin, kMaskedScore);
    std::fill(scores + range.end, scores + rows, kMaskedScore);
    broken_[i] |= !scale_scores(scores + range.begin, range.end - range.begin, scale_);
    softmax_[i].add(scores, rows, 0);
    const float factor = softmax_[i].rescale();
    if (factor == 1) continue;
    for (std::size_t j = i * d_; j < (i + 1) * d_; ++j) {
      exact_sum_[j] *= factor;
      code_sum_[j] *= factor;
    }
  }
}

void HeadAttention::finish(float* out, float* lse) const {
  if (rotated_values_ != nullptr) {
    rotated_values_->rotation().inverse(code_sum_.data(), out, count_);
  } else {
    std::copy(code_sum_.begin(), code_sum_.end(), out);
  }
  for (std::size_t i = 0; i < count_; ++i) {
    const double sum = softmax_[i].sum();
    for (std::size_t j = i * d_; j < (i + 1) * d_; ++j) {
      if (broken_[i]) {
        out[j] = std::numeric_limits<float>::quiet_NaN();
      } else {
        out[j] = sum > 0 ? static_cast<float>(static_cast<double>(exact_sum_[j] + out[j]) / sum) : 0.0f;
      }
    }
    if (lse == nullptr) continue;
    lse[i] = broken_[i] ? std::numeric_limits<float>::quiet_NaN()
             : sum > 0  ? static_cast<float>(softmax_[i].log_sum_exp())
                        : -std::numeric_limits<float>::infinity();
  }
}

}  // namespace tq
