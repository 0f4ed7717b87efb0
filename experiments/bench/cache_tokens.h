#pragma once

#include <vector>

#include "experiments/bench/code_differences.h"
#include "experiments/bench/run.h"
#include "kernel_templates/gpu_kv_cache.h"

namespace tq::bench {

// Random binary16 tokens of all KV heads, as caches take them: on the device, and the same on the host.
class CacheTokens {
 public:
  CacheTokens(Run& run, int kv_heads, int d, std::size_t tokens);

  // From this token on.
  gpu::DeviceVectors k(std::size_t token) const { return at(device_k_, token); }
  gpu::DeviceVectors v(std::size_t token) const { return at(device_v_, token); }
  const float* host_k(std::size_t token) const { return host_k_.data() + token * row_; }
  const float* host_v(std::size_t token) const { return host_v_.data() + token * row_; }

 private:
  gpu::DeviceVectors at(const DeviceBuffer& buffer, std::size_t token) const {
    return {buffer.as<gpu::u16>() + token * row_, gpu::Element::f16};
  }

  std::size_t row_;  // elements of a token
  DeviceBuffer device_k_, device_v_;
  std::vector<float> host_k_, host_v_;
};

// One sequence of a layer against another that was given the same tokens.
void add_differences(const CacheLayer& layer, const TokenStore& is, const TokenStore& should,
                     CodeDifferences& differences);

}  // namespace tq::bench
