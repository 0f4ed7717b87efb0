#pragma once

#include <memory>
#include <string>

#include "core/cache_policy.h"
#include "experiments/command_line.h"
#include "experiments/language_model/attention_cache.h"

namespace tq {

// The caches that a command compares: the one that its options name, and an FP16 one.
struct ModelCaches {
  std::string name;    // of the first: its codecs, its artefact, or float32
  CachePolicy policy;  // of the first
  bool quantises = false;
  std::unique_ptr<AttentionCache> cache, baseline;

  // The first position whose query sees codes.
  std::size_t first_far_position() const;
};

// --artefact, --cache, --backend, the tokens that stay exact, and the codec's options.
void add_model_cache_options(CommandLine& line);
// Throws UsageError where they contradict each other or do not fit the model, SystemError for --backend cuda
// without a GPU.
ModelCaches read_model_caches(const CommandLine& line, const ModelConfig& config);

}  // namespace tq
