#include "experiments/sweep/fused_attention.h"

#include <cmath>
#include <limits>

#include "experiments/cache_codec.h"
#include "experiments/cuda_backend.h"
#include "experiments/sweep/backends.h"
#include "jit/memory.h"
#include "kernel_templates/gpu_kv_cache.h"

namespace tq {
namespace {

constexpr CachePolicy kAllQuantised{.recent = 0, .sinks = 0, .flush_block = 1};

std::vector<float> synthetic_rows(const DataKey& data, Tensor tensor, std::size_t rows) {
  std::vector<float> values(rows * static_cast<std::size_t>(data.head_dim));
  SyntheticRows({.distribution = data.distribution, .head_dim = data.head_dim}, data.seed,
                static_cast<std::uint32_t>(tensor))
      .next(rows, values.data());
  return values;
}

struct Step {
  std::size_t tokens;
  std::vector<float> k, v;  // tokens x KV heads x d
  std::vector<float> q;     // query heads x d
  int query_heads;
  float softmax_scale;
  std::vector<float> out, lse;  // NaN until they are written
};

Step make_step(const Configuration& configuration) {
  const DataKey& data = configuration.data;
  const int heads = configuration.fused->kv_heads, query_heads = heads * configuration.fused->group;
  const std::size_t vectors = data.rows * static_cast<std::size_t>(heads),
                    queries = static_cast<std::size_t>(query_heads);
  constexpr float kNotWritten = std::numeric_limits<float>::quiet_NaN();
  return {data.rows,
          synthetic_rows(data, Tensor::k, vectors),
          synthetic_rows(data, Tensor::v, vectors),
          synthetic_rows(data, Tensor::q, queries),
          query_heads,
          1 / std::sqrt(static_cast<float>(data.head_dim)),
          std::vector<float>(queries * static_cast<std::size_t>(data.head_dim), kNotWritten),
          std::vector<float>(queries, kNotWritten)};
}

// Both return what the cache holds.
KvCache run_on_host(const CacheLayer& layer, Step& step) {
  KvCache cache({layer}, kAllQuantised);
  cache.prefill(0, 0, step.k.data(), step.v.data(), step.tokens);
  cache.attend_batch(0, step.q.data(), step.query_heads, step.softmax_scale, step.out.data(),
                     step.lse.data());
  return cache;
}

KvCache run_on_gpu(const CacheLayer& layer, Step& step) {
  const Device& device = default_gpu().device();
  const CurrentContext current(device);
  const auto uploaded = [&](const std::vector<float>& values) {
    DeviceBuffer buffer(device, values.size() * sizeof(float));
    upload(buffer.address(), values);
    return buffer;
  };
  const DeviceBuffer k = uploaded(step.k), v = uploaded(step.v), q = uploaded(step.q),
                     out = uploaded(step.out), lse = uploaded(step.lse);
  const auto vectors = [](const DeviceBuffer& buffer) {
    return gpu::DeviceVectors{buffer.as<const void>(), gpu::Element::f32};
  };
  gpu::GpuKvCache cache(default_gpu(), {layer}, kAllQuantised);
  cache.prefill(0, 0, vectors(k), vectors(v), step.tokens);
  cache.attend_batch(0, vectors(q), step.query_heads, step.softmax_scale, out.as<void>(), gpu::Element::f32,
                     lse.as<float>());
  download(step.out, out.address());
  download(step.lse, lse.address());
  return cache.to_host();
}

}  // namespace

FusedReport measure_fused(const Configuration& configuration) {
  const CacheLayer layer =
      uniform_layers(configuration.codec, 1, configuration.data.head_dim, configuration.fused->kv_heads)
          .front();
  Step step = make_step(configuration);
  const KvCache cache =
      configuration.point[Axis::backend] == kCudaBackend ? run_on_gpu(layer, step) : run_on_host(layer, step);
  return compare_with_float64(cache, step.q, step.softmax_scale, step.out, step.lse);
}

}  // namespace tq
