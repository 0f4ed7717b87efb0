#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <vector>

#include "experiments/language_model/attention_cache.h"
#include "experiments/language_model/language_model.h"

namespace tq {

// A mean over positions, and its standard error from the means of the windows, which are taken as independent
// draws; none for fewer than two windows.
struct WindowMean {
  double mean = 0;
  std::optional<double> standard_error;
};

// How a model with one cache predicts, beside the same model with the baseline's cache.
struct PredictionMeans {
  std::size_t positions = 0;
  WindowMean nats, baseline_nats;  // a token: -log p
  WindowMean nats_increase;        // nats - baseline_nats; its error is that of the difference
  WindowMean kl;                   // nats, KL(baseline's next-token distribution || this one's)
  WindowMean top1_agreement;       // share of positions where both find the same token most probable
};

struct PerplexityReport {
  std::size_t windows = 0;
  PredictionMeans all;
  // Of positions from `far_from` on; no value when a window has none.
  std::optional<PredictionMeans> far;
};

// A text cut into windows of `context` tokens that do not overlap; what is left at the end is not read.
class TextWindows {
 public:
  // Throws UsageError for fewer than two tokens of context, and InputError for fewer tokens than one window.
  TextWindows(std::vector<std::uint32_t> tokens, std::size_t context);

  std::size_t count() const { return tokens_.size() / context_; }
  std::size_t context() const { return context_; }
  std::span<const std::uint32_t> operator[](std::size_t window) const {
    return std::span(tokens_).subspan(window * context_, context_);
  }

 private:
  std::vector<std::uint32_t> tokens_;
  std::size_t context_;
};

// Reads every window from position 0, and predicts every token of it but the first. `baseline_states` gives
// what LanguageModel::read() of a window gives with the baseline's cache. Calls `progress` with `context`
// after each layer. Throws InputError for logits that are not finite.
PerplexityReport measure_perplexity(
    const LanguageModel& model, const TextWindows& windows, std::size_t far_from,
    const std::function<std::vector<float>(std::size_t window)>& baseline_states, AttentionCache& cache,
    const std::function<void(std::size_t)>& progress);

}  // namespace tq
