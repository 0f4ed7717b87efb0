#pragma once

#include <cstddef>
#include <memory>
#include <vector>

#include "core/cache_layer.h"
#include "core/cache_policy.h"
#include "experiments/language_model/model_config.h"

namespace tq {

// Where a model keeps the keys and values of the sequence that it reads, and what its attention reads them
// from.
class AttentionCache {
 public:
  virtual ~AttentionCache() = default;

  // Forgets all tokens.
  virtual void clear() = 0;
  // Appends tokens to the layer, and attends with each one's queries to all tokens up to it, as core's
  // KvCache::append_and_attend(). k, v: tokens x num_kv_heads x d; q, out: tokens x num_q_heads x d.
  virtual void append_and_attend(int layer, const float* k, const float* v, std::size_t tokens,
                                 const float* q, float* out) = 0;
  // Of all layers, what is stored for the tokens held.
  virtual std::size_t bytes() const = 0;
};

// 1 / sqrt(d).
float softmax_scale(const ModelConfig& config);

// Throws UsageError where the layers of a cache are not those of the model.
void check_layers(const ModelConfig& config, const std::vector<CacheLayer>& layers);

// core's KvCache. Throws UsageError where layers, policy and model do not fit.
std::unique_ptr<AttentionCache> host_cache(const ModelConfig& config, std::vector<CacheLayer> layers,
                                           const CachePolicy& policy);

// All tokens as binary16: the baseline.
std::vector<CacheLayer> binary16_layers(const ModelConfig& config);

// Keys and values as float32, which nothing rounds: the model's own arithmetic.
std::unique_ptr<AttentionCache> float32_cache(const ModelConfig& config);

}  // namespace tq
