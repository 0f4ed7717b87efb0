#pragma once

#include <memory>
#include <vector>

#include "core/kv_cache.h"
#include "kernel_templates/gpu_attention.h"

namespace tq::gpu {

// Vectors in device memory, contiguous.
struct DeviceVectors {
  const void* data;
  Element element;
};

// core/kv_cache.h on the GPU: the same layers, policy and semantics, with vectors in device memory. Quantised
// tokens lie in pages of one tile (64 tokens) of all KV heads, codes in the order of shared/tile_layout.h;
// pages come from a range of addresses that grows at its end, so what is stored is neither copied nor moved.
// The binary16 window is a ring.
//
// All work goes into the stream given at construction. Errors as KvCache's; running out of device memory
// throws SystemError and leaves the cache as it was.
class GpuKvCache {
 public:
  // Throws UsageError for a codec that has no kernels. `gpu` must outlive the cache.
  GpuKvCache(GpuContext& gpu, std::vector<CacheLayer> layers, CachePolicy policy, int batch = 1,
             StreamRef stream = {});
  ~GpuKvCache();

  const CachePolicy& policy() const { return policy_; }
  int batch() const { return batch_; }
  int layers() const { return static_cast<int>(layers_.size()); }
  const CacheLayer& layer(int layer) const;
  std::size_t tokens(int layer, int sequence) const;

  // k, v: tokens x num_kv_heads x d, oldest first.
  void prefill(int layer, int sequence, DeviceVectors k, DeviceVectors v, std::size_t tokens);
  void append(int layer, int sequence, DeviceVectors k, DeviceVectors v, std::size_t tokens = 1);
  // The same number of tokens to every sequence of the batch: batch x tokens x num_kv_heads x d.
  void append_batch(int layer, DeviceVectors k, DeviceVectors v, std::size_t tokens = 1);

  // q: batch x q_heads x d; out the same, of its own element type; lse: batch x q_heads, may be null.
  void attend_batch(int layer, DeviceVectors q, int q_heads, float softmax_scale, void* out,
                    Element out_element, float* lse = nullptr);

  // gain <q_h, k^_t> of the quantised tokens of one sequence: out[h * stride + t], t counted from the first
  // quantised one. q: q_heads x d.
  void quantised_scores(int layer, int sequence, DeviceVectors q, int q_heads, float gain, float* out,
                        std::size_t stride);

  // As KvCache::bytes_used(); `allocated` is device memory.
  CacheBytes bytes_used() const;

  // The same content on the host, and from there: the way to save and restore.
  KvCache to_host() const;
  void from_host(const KvCache& cache);

 private:
  struct Layer;
  Layer& at(int layer) const;
  void append_sequences(Layer& layer, int first_sequence, int sequences, DeviceVectors k, DeviceVectors v,
                        std::size_t tokens);

  GpuContext& gpu_;
  CachePolicy policy_;
  int batch_;
  StreamRef stream_;
  std::vector<std::unique_ptr<Layer>> layers_;
};

}  // namespace tq::gpu
