#pragma once

#include <cstddef>

namespace tq {

// Attention in float32 on uncompressed rows: the other side of every comparison. The order of every sum is
// fixed, so results depend on neither the thread count nor the SIMD target.

// out[q * rows + t] = <query q, key t>. queries: count x d; keys: rows x d; d a multiple of 4.
void dense_scores(const float* queries, std::size_t count, const float* keys, std::size_t rows, std::size_t d,
                  float* out);

// out[q * d + j] += sum over t of weights[q * stride + t] values[t * d + j]. On the calling thread.
void accumulate_weighted_rows(const float* weights, std::size_t count, std::size_t stride,
                              const float* values, std::size_t rows, std::size_t d, float* out);

// What an error measure needs of a vector x and its reconstruction.
struct ErrorProducts {
  float xx, xr, rr, dd;  // ||x||^2, <x, x^>, ||x^||^2, ||x - x^||^2
};
// One entry a row of x and `reconstruction` (rows x d).
void error_products(const float* x, const float* reconstruction, std::size_t rows, std::size_t d,
                    ErrorProducts* out);

// The score of a token that a query must not see.
inline constexpr float kMaskedScore = -1e30f;

// Multiplies scores by `scale`. False when one is NaN then, or as large as a masked one: no softmax can use
// it.
bool scale_scores(float* scores, std::size_t count, float scale);

// The softmax of one query over a stream of token blocks, with a running maximum.
class SoftmaxStream {
 public:
  // What one block added.
  struct Block {
    float max = kMaskedScore;  // largest score; kMaskedScore when nothing was visible
    std::size_t top = 0;       // its token
    double sum = 0;            // sum of exp(score - reference)
    float reference = 0;       // the running maximum after the block
  };

  // Scores of `count` tokens, the first of which has index `first`; those the query must not see hold
  // kMaskedScore. Overwrites them with exp(score - max()), 0 where masked.
  Block add(float* scores, std::size_t count, std::size_t first);
  // Adds a block that another stream of the same query has seen, and that this one can_add(). Returns the
  // factor that turns that block's weights into this stream's.
  float add(const Block& block);
  // False where the other stream's maximum lies so far above this one's that the block's weights, float32
  // numbers relative to it, may have vanished: its scores must be added instead.
  bool can_add(const Block& block) const;

  // What weighted sums of earlier blocks must be multiplied by after the latest add().
  float rescale() const { return rescale_; }
  float max() const { return max_; }
  double sum() const { return sum_; }  // of exp(score - max()); 0 while nothing was visible
  std::size_t top() const { return top_; }
  double log_sum_exp() const;

 private:
  void raise(float block_max, std::size_t top);

  float max_ = kMaskedScore;
  float rescale_ = 1;
  std::size_t top_ = 0;
  double sum_ = 0;
};

// Sums over the tokens of one query, masked ones (kMaskedScore in a) left out.
struct ScoreProducts {
  double weighted_difference = 0;  // sum weights (a - b)
  double aa = 0, ab = 0, dd = 0;   // sum a^2, a b, (a - b)^2
};
ScoreProducts score_products(const float* weights, const float* a, const float* b, std::size_t count);

}  // namespace tq
