#include "experiments/language_model/attention_cache.h"

#include <algorithm>
#include <cmath>
#include <optional>

#include "core/error.h"
#include "core/head_attention.h"
#include "core/kv_cache.h"
#include "core/tile.h"

namespace tq {
namespace {

class HostCache : public AttentionCache {
 public:
  HostCache(const ModelConfig& config, std::vector<CacheLayer> layers, const CachePolicy& policy)
      : q_heads_(config.num_q_heads),
        scale_(softmax_scale(config)),
        layers_(std::move(layers)),
        policy_(policy),
        cache_(layers_, policy_) {}

  void clear() override { cache_ = KvCache(layers_, policy_); }
  void append_and_attend(int layer, const float* k, const float* v, std::size_t tokens, const float* q,
                         float* out) override {
    cache_.append_and_attend(layer, 0, k, v, tokens, q, q_heads_, scale_, out);
  }
  std::size_t bytes() const override { return cache_.bytes_used().total(); }

 private:
  int q_heads_;
  float scale_;
  std::vector<CacheLayer> layers_;
  CachePolicy policy_;
  KvCache cache_;
};

class Float32Cache : public AttentionCache {
 public:
  explicit Float32Cache(const ModelConfig& config)
      : kv_heads_(static_cast<std::size_t>(config.num_kv_heads)),
        group_(static_cast<std::size_t>(config.num_q_heads / config.num_kv_heads)),
        d_(static_cast<std::size_t>(config.head_dim)),
        scale_(softmax_scale(config)),
        layers_(static_cast<std::size_t>(config.num_layers)) {}

  void clear() override {
    for (Rows& rows : layers_) rows = {};
  }

  void append_and_attend(int layer, const float* k, const float* v, std::size_t tokens, const float* q,
                         float* out) override {
    Rows& rows = layers_[static_cast<std::size_t>(layer)];
    const std::size_t width = kv_heads_ * d_, before = rows.keys.size() / width;
    rows.keys.insert(rows.keys.end(), k, k + tokens * width);
    rows.values.insert(rows.values.end(), v, v + tokens * width);
#pragma omp parallel for schedule(dynamic) num_threads(team_size(tokens* kv_heads_))
    for (std::size_t task = 0; task < tokens * kv_heads_; ++task) {
      const std::size_t head = task % kv_heads_;
      HeadAttention attention(q + task * group_ * d_, group_, d_, scale_);
      std::vector<float> keys(HeadAttention::kMaxRun * d_), values(keys.size());
      const std::size_t seen = before + task / kv_heads_ + 1;
      for (std::size_t begin = 0; begin < seen; begin += HeadAttention::kMaxRun) {
        const std::size_t count = std::min(HeadAttention::kMaxRun, seen - begin);
        for (std::size_t t = 0; t < count; ++t) {
          const std::size_t from = ((begin + t) * kv_heads_ + head) * d_;
          std::copy_n(&rows.keys[from], d_, &keys[t * d_]);
          std::copy_n(&rows.values[from], d_, &values[t * d_]);
        }
        attention.add_rows(keys.data(), values.data(), count);
      }
      attention.finish(out + task * group_ * d_, nullptr);
    }
  }

  std::size_t bytes() const override {
    std::size_t floats = 0;
    for (const Rows& rows : layers_) floats += rows.keys.size() + rows.values.size();
    return floats * sizeof(float);
  }

 private:
  struct Rows {
    std::vector<float> keys, values;  // tokens x kv_heads x d
  };

  std::size_t kv_heads_, group_, d_;
  float scale_;
  std::vector<Rows> layers_;
};

}  // namespace

float softmax_scale(const ModelConfig& config) {
  return static_cast<float>(1 / std::sqrt(static_cast<double>(config.head_dim)));
}

void check_layers(const ModelConfig& config, const std::vector<CacheLayer>& layers) {
  if (layers.size() != static_cast<std::size_t>(config.num_layers)) {
    throw UsageError("the cache has {} layers, the model {}", layers.size(), config.num_layers);
  }
  for (const CacheLayer& layer : layers) {
    if (layer.head_dim != config.head_dim || layer.num_kv_heads != config.num_kv_heads) {
      throw UsageError("the cache is of {} KV heads of {}, the model of {} of {}", layer.num_kv_heads,
                       layer.head_dim, config.num_kv_heads, config.head_dim);
    }
  }
}

std::unique_ptr<AttentionCache> host_cache(const ModelConfig& config, std::vector<CacheLayer> layers,
                                           const CachePolicy& policy) {
  check_layers(config, layers);
  return std::make_unique<HostCache>(config, std::move(layers), policy);
}

std::vector<CacheLayer> binary16_layers(const ModelConfig& config) {
  return {static_cast<std::size_t>(config.num_layers), {config.head_dim, config.num_kv_heads, {}, {}}};
}

std::unique_ptr<AttentionCache> float32_cache(const ModelConfig& config) {
  return std::make_unique<Float32Cache>(config);
}

}  // namespace tq
