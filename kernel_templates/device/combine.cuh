#pragma once

#include "device/queries.cuh"
#include "shared/launch.h"

// Splits to outputs: weighs them by their sums (log-sum-exp), takes rotated values back once, divides.
namespace tq::gpu {


// Blocks (query head, sequence).
template <CombineSpec kSpec>
__global__ void __launch_bounds__(kCombineThreads) combine(const __grid_constant__ CombineParams p) {
  constexpr int d = kSpec.head_dim;
  using H = Hadamard<d>;
  __shared__ float rotated[d], result[d];
  const int query = blockIdx.x, sequence = blockIdx.y, head = query / p.group;
  const int splits = p.tile_splits + p.exact_splits;
  const i64 first = (static_cast<i64>(sequence) * p.kv_heads + head) * splits * p.group + query % p.group;
  const auto softmax_of = [&](int split) { return p.partial_softmax + (first + static_cast<i64>(split) * p.group) * 2; };

  float maximum = -infinity();
  for (int split = 0; split < splits; ++split) maximum = fmaxf(maximum, softmax_of(split)[0]);
  const float reference = maximum == -infinity() ? 0.0f : maximum;
  float sum = 0;
  for (int split = 0; split < splits; ++split)
    sum = fmaf(exp2_approx(softmax_of(split)[0] - reference), softmax_of(split)[1], sum);
  const float inverse = sum == 0 ? 0.0f : 1.0f / sum;  // nothing to attend to: zeros

  for (int j = threadIdx.x; j < d; j += kCombineThreads) {
    float tiles = 0, exact = 0;
    for (int split = 0; split < splits; ++split) {
      const float weight = exp2_approx(softmax_of(split)[0] - reference) * inverse;
      const float value = p.partial_output[(first + static_cast<i64>(split) * p.group) * d + j];
      if (split < p.tile_splits) {
        tiles = fmaf(weight, value, tiles);
      } else {
        exact = fmaf(weight, value, exact);
      }
    }
    rotated[j] = kSpec.rotated ? tiles : 0.0f;
    result[j] = kSpec.rotated ? exact : tiles + exact;
  }
  __syncthreads();
  if constexpr (kSpec.rotated) {
    if constexpr (kSpec.rotation == Mixing::dense) {
      for (int j = threadIdx.x; j < d; j += kCombineThreads) {
        float total = 0;
        for (int k = 0; k < d; ++k) total = fmaf(rotated[k], p.rotation.matrix[k * d + j], total);
        result[j] += total;
      }
    } else if (threadIdx.x < kLanes) {
      const int l = threadIdx.x % H::kWidth;
      const float gain = 1.0f / sqrtf(static_cast<float>(d));
      typename H::Registers x;
#pragma unroll
      for (int e = 0; e < H::kElements; ++e) x[e] = rotated[H::coordinate(e, l)];
      H::template transform<true>(x, l);
      if (threadIdx.x < H::kWidth) {
#pragma unroll
        for (int e = 0; e < H::kElements; ++e) {
          const int i = H::coordinate(e, l);
          result[i] += x[e] * gain * p.rotation.signs[i];
        }
      }
    }
    __syncthreads();
  }
  const i64 out = sequence * p.out_sequence_stride + query * p.out_head_stride;
  for (int j = threadIdx.x; j < d; j += kCombineThreads) store_element(p.out_element, p.out, out + j, result[j]);
  if (p.log_sum_exp != nullptr && threadIdx.x == 0) {
    constexpr float kLn2 = 0.6931471805599453f;
    p.log_sum_exp[static_cast<i64>(sequence) * gridDim.x + query] = (maximum + log2f(sum)) * kLn2;
  }
}

}  // namespace tq::gpu
