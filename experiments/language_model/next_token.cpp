#include "experiments/language_model/next_token.h"

#include <algorithm>
#include <cmath>
#include <vector>

namespace tq {
namespace {

// The normalised distribution of one row of logits.
struct Softmax {
  double log_sum = 0;  // log of the sum of exp(logit)
  std::size_t top = 0;

  Softmax(const float* logits, std::size_t count) {
    top = static_cast<std::size_t>(std::max_element(logits, logits + count) - logits);
    const double largest = static_cast<double>(logits[top]);
    double sum = 0;
    for (std::size_t i = 0; i < count; ++i) sum += std::exp(static_cast<double>(logits[i]) - largest);
    log_sum = largest + std::log(sum);
  }
  double log_probability(float logit) const { return static_cast<double>(logit) - log_sum; }
};

}  // namespace

void compare_predictions(const float* baseline, const float* logits, std::size_t rows, std::size_t vocab_size,
                         const std::uint32_t* tokens, Prediction* out) {
#pragma omp parallel for schedule(static)
  for (std::size_t row = 0; row < rows; ++row) {
    const float *p = baseline + row * vocab_size, *q = logits + row * vocab_size;
    const Softmax exact(p, vocab_size), other(q, vocab_size);
    double kl = 0;
    for (std::size_t i = 0; i < vocab_size; ++i) {
      const double log_p = exact.log_probability(p[i]);
      kl += std::exp(log_p) * (log_p - other.log_probability(q[i]));
    }
    const std::uint32_t token = tokens[row];
    out[row] = {-other.log_probability(q[token]), -exact.log_probability(p[token]), kl,
                exact.top == other.top};
  }
}

}  // namespace tq
