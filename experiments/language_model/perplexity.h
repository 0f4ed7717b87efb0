#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>

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
  std::size_t windows = 0, context = 0;
  PredictionMeans all;
  // Of positions from `far_from` on; no value when a window has none.
  std::optional<PredictionMeans> far;
  std::size_t bytes = 0, baseline_bytes = 0;  // of the caches, at the end of a window
};

// Reads `tokens` in windows of `context` tokens that do not overlap, each from position 0; what is left at
// the end is not read. Every token of a window but the first is predicted. Calls `progress` with the tokens
// done since the last call, windows * context * 2 in all. Throws UsageError for fewer than two tokens of
// context, and InputError for fewer tokens than one window or logits that are not finite.
PerplexityReport measure_perplexity(const LanguageModel& model, std::span<const std::uint32_t> tokens,
                                    std::size_t context, std::size_t far_from, AttentionCache& baseline,
                                    AttentionCache& cache, const std::function<void(std::size_t)>& progress);

}  // namespace tq
