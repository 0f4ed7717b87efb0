#pragma once

#include "kernel_templates/gpu_codec.h"

namespace tq::gpu {

// One decode step's attention over what a cache holds, on the GPU: one launch.
class GpuAttention {
 public:
  // Exact tokens only: the binary16 baseline.
  GpuAttention(GpuContext& gpu, int head_dim);
  // Both must outlive this.
  GpuAttention(GpuContext& gpu, const GpuKeyCodec& keys, const GpuValueCodec& values);

  struct Call {
    // [sequence][query head][d], contiguous, as is `out`.
    const void* queries = nullptr;
    Element element = Element::f16;
    void* out = nullptr;
    Element out_element = Element::f16;
    float* log_sum_exp = nullptr;  // [sequence][query head], natural; may be null
    int group = 1;                 // query heads a KV head, 1..16
    int kv_heads = 1, sequences = 1;
    float softmax_scale = 1;
    TileView keys{}, values{};
    ExactView exact{};
    const SequenceState* states = nullptr;   // in device memory, one a sequence
    int most_quantised = 0, most_exact = 0;  // tokens, over the sequences: bounds
  };
  // Throws UsageError for a group that has no kernels. Allocates its workspace when a call needs more than
  // any before; otherwise it may be captured in a Graph.
  void attend(const Call& call, StreamRef stream);

 private:
  // Without its block.
  AttendSpec spec_of(int group) const;

  GpuContext& gpu_;
  int head_dim_;
  const GpuKeyCodec* keys_ = nullptr;
  const GpuValueCodec* values_ = nullptr;
  DeviceBuffer partial_output_, partial_softmax_, finished_;
};

}  // namespace tq::gpu
