#pragma once

#include "device/dense_rows.cuh"
#include "device/hadamard.cuh"
#include "shared/launch.h"
#include "shared/params.h"

// Rotated and sketched vectors in core's order: what core::KeyCodec::prepare() gives.
namespace tq::gpu {

template <RotateSpec kSpec>
__global__ void __launch_bounds__(kRotateThreads) rotate(const __grid_constant__ RotateParams p) {
  constexpr KeySpec kKey = kSpec.key;
  constexpr int d = kKey.head_dim;
  static_assert(kVectorRows * d * 4 <= rotate_shared_bytes(kKey));
  using H = Hadamard<d>;
  float* vectors = reinterpret_cast<float*>(dynamic_shared);
  const i64 first = static_cast<i64>(blockIdx.x) * kVectorRows;
  const int rows = static_cast<int>(min(static_cast<i64>(kVectorRows), p.rows - first));
  const int lane = threadIdx.x % kLanes, l = lane % H::kWidth;
  constexpr int kBlockRows = kRotateThreads / H::kWidth;

  for (int i = threadIdx.x; i < kVectorRows * d; i += kRotateThreads)
    vectors[i] = i < rows * d ? load_element<kSpec.element>(p.in, first * d + i) : 0.0f;
  __syncthreads();

  // y = H D x gain in place, in the order before the permutation.
  const auto hadamard = [&](const MixingParams& mixing, float gain, const u16* gather) {
    for (int start = 0; start < kVectorRows; start += kBlockRows) {
      const int row = start + threadIdx.x / H::kWidth;
      typename H::Registers x = {};
#pragma unroll
      for (int e = 0; e < H::kElements; ++e) {
        const int i = H::coordinate(e, l);
        if (row < kVectorRows)
          x[e] = vectors[row * d + (gather == nullptr ? i : gather[i])] * mixing.signs[i];
      }
      H::template transform<false>(x, l);
      __syncwarp();
#pragma unroll
      for (int e = 0; e < H::kElements; ++e) {
        if (row < kVectorRows) vectors[row * d + H::coordinate(e, l)] = x[e] * gain;
      }
    }
    __syncthreads();
  };

  if constexpr (kKey.rotation == Mixing::dense) {
    dense_rows<d, kVectorRows, kRotateThreads>(vectors, p.rotation.matrix);
  } else {
    hadamard(p.rotation, 1.0f / sqrtf(static_cast<float>(d)), nullptr);
  }
  const u16* order = kKey.rotation == Mixing::dense ? nullptr : p.rotation.permutation;
  for (int i = threadIdx.x; i < rows * d; i += kRotateThreads)
    p.rotated[first * d + i] = vectors[i / d * d + (order == nullptr ? i % d : order[i % d])];
  if constexpr (kKey.prod) {
    __syncthreads();
    if constexpr (kKey.sketch == Mixing::dense) {
      dense_rows<d, kVectorRows, kRotateThreads>(vectors, p.sketch.matrix);
    } else {
      hadamard(p.sketch, 1.0f, order);
    }
    const u16* sketch_order = kKey.sketch == Mixing::dense ? nullptr : p.sketch.permutation;
    for (int i = threadIdx.x; i < rows * d; i += kRotateThreads)
      p.sketched[first * d + i] =
          vectors[i / d * d + (sketch_order == nullptr ? i % d : sketch_order[i % d])];
  }
}

}  // namespace tq::gpu
