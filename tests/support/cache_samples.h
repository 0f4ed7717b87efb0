#pragma once

#include <string>
#include <vector>

#include "core/kv_cache.h"
#include "core/random.h"

namespace tq::test {

// Tables and alpha of its own for each KV head, or one codec for all; rotations and sketches drawn from
// `random`.
CacheLayer codec_layer(int head_dim, int num_kv_heads, const KeyConfig& key, const ValueConfig& value,
                       bool codec_per_head, Random& random);
CacheLayer exact_layer(int head_dim, int num_kv_heads);

// Codecs of every mode, scale rule, sketch and rotation that fit head_dim, and an exact layer.
std::vector<CacheLayer> sample_layers(int head_dim, int num_kv_heads, Random& random);
std::string describe(const CacheLayer&);

// Keys and values of one sequence, sized so that attention is neither flat nor one-hot.
struct SampleTokens {
  std::size_t width;  // num_kv_heads x d
  std::vector<float> k, v;

  SampleTokens(const CacheLayer& layer, std::size_t tokens, Random& random);
  std::size_t count() const { return k.size() / width; }
  const float* key(std::size_t token) const { return k.data() + token * width; }
  const float* value(std::size_t token) const { return v.data() + token * width; }
  void append_to(KvCache& cache, int layer, int sequence, std::size_t begin, std::size_t end) const {
    cache.append(layer, sequence, key(begin), value(begin), end - begin);
  }
};

// What KvCache::save writes.
std::string saved(const KvCache& cache);

}  // namespace tq::test
