#pragma once

#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "calibration/layer_context.h"
#include "experiments/language_model/perplexity.h"
#include "experiments/sweep/configuration.h"

namespace tq {

// The values of the axis `text`: FILE, or "tokens:FILE".
bool is_token_file(const std::string& text);
std::string text_file(const std::string& text);

// A model, a text, and what the model with an FP16 cache makes of it, which every configuration is compared
// with.
class ModelSource {
 public:
  // The configuration is of `measure = perplexity`.
  explicit ModelSource(const Configuration& configuration);

  bool fits(const Configuration& configuration) const;
  const LanguageModel& model() const { return model_; }
  const TextWindows& windows() const { return windows_; }
  // Of LanguageModel::read().
  const std::vector<float>& baseline_states(std::size_t window) const { return states_[window]; }

 private:
  std::string model_sha256_, text_sha256_, backend_;
  LanguageModel model_;
  TextWindows windows_;
  std::vector<std::vector<float>> states_;
};

// Makes sources on `threads` threads, one at a time, and keeps the latest. Safe to share between threads.
class ModelSources {
 public:
  explicit ModelSources(int threads) : threads_(threads) {}
  std::shared_ptr<const ModelSource> get(const Configuration& configuration);

 private:
  int threads_;
  std::mutex mutex_;
  std::shared_ptr<const ModelSource> latest_;
};

// The configuration's cache on a source that fits it. KvCache stores what it can; see round_trip_cache() for
// the rest.
PerplexityReport measure_perplexity(const Configuration& configuration, const ModelSource& source,
                                    const Progress& progress);

}  // namespace tq
