#pragma once

#include <cstddef>
#include <cstdint>

namespace tq {

// How a model predicts the token that came, and how far that is from another run of it, the baseline.
struct Prediction {
  double nats = 0, baseline_nats = 0;  // -log p(token)
  double kl = 0;                       // nats, KL(baseline's distribution || this one's)
  bool same_top = false;               // both give the same token the highest probability
};

// logits, baseline: rows x vocab_size; tokens: what came, one a row. Not finite where logits are not. On
// OpenMP threads; sums are float64.
void compare_predictions(const float* baseline, const float* logits, std::size_t rows, std::size_t vocab_size,
                         const std::uint32_t* tokens, Prediction* out);

}  // namespace tq
