#include "experiments/cuda_attention_cache.h"

#include <span>

#include "experiments/cuda_backend.h"
#include "jit/memory.h"
#include "kernel_templates/gpu_kv_cache.h"

namespace tq {
namespace {

using gpu::DeviceVectors;
using gpu::Element;

class CudaCache : public AttentionCache {
 public:
  CudaCache(const ModelConfig& config, std::vector<CacheLayer> layers, const CachePolicy& policy)
      : q_heads_(config.num_q_heads),
        q_width_(static_cast<std::size_t>(config.num_q_heads * config.head_dim)),
        kv_width_(static_cast<std::size_t>(config.num_kv_heads * config.head_dim)),
        scale_(softmax_scale(config)),
        layers_(std::move(layers)),
        policy_(policy) {
    clear();
  }

  void clear() override {
    cache_.reset();  // its memory first
    cache_ = std::make_unique<gpu::GpuKvCache>(default_gpu(), layers_, policy_);
  }

  void append_and_attend(int layer, const float* k, const float* v, std::size_t tokens, const float* q,
                         float* out) override {
    const Device& device = default_gpu().device();
    const CurrentContext current(device);
    const auto on_device = [&](const float* x, std::size_t width) {
      DeviceBuffer buffer(device, tokens * width * sizeof(float));
      upload(buffer.address(), std::span(x, tokens * width));
      return buffer;
    };
    const DeviceBuffer keys = on_device(k, kv_width_), values = on_device(v, kv_width_);
    const DeviceBuffer queries = on_device(q, q_width_);
    const DeviceBuffer result(device, tokens * q_width_ * sizeof(float));
    for (std::size_t t = 0; t < tokens; ++t) {
      const auto row = [t](const DeviceBuffer& buffer, std::size_t width) {
        return buffer.as<float>() + t * width;
      };
      cache_->append(layer, 0, DeviceVectors{row(keys, kv_width_), Element::f32},
                     DeviceVectors{row(values, kv_width_), Element::f32});
      cache_->attend_batch(layer, DeviceVectors{row(queries, q_width_), Element::f32}, q_heads_, scale_,
                           row(result, q_width_), Element::f32);
    }
    download(std::span(out, tokens * q_width_), result.address());
  }

  std::size_t bytes() const override { return cache_->bytes_used().total(); }

 private:
  int q_heads_;
  std::size_t q_width_, kv_width_;
  float scale_;
  std::vector<CacheLayer> layers_;
  CachePolicy policy_;
  std::unique_ptr<gpu::GpuKvCache> cache_;
};

}  // namespace

std::unique_ptr<AttentionCache> cuda_cache(const ModelConfig& config, std::vector<CacheLayer> layers,
                                           const CachePolicy& policy) {
  check_layers(config, layers);
  return std::make_unique<CudaCache>(config, std::move(layers), policy);
}

}  // namespace tq
