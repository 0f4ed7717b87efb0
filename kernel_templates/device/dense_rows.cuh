#pragma once

#include "device/ptx.cuh"

namespace tq::gpu {

// x (kRows x d, in shared memory) becomes x M for a d x d matrix in global memory, row k of it what input k
// adds. All threads of the block, before and after a barrier of its own. A thread keeps one column of several
// rows, so that every entry of M is read once a block.
template <int d, int kRows, int kThreads>
TQ_DEVICE void dense_rows(float* x, const float* matrix) {
  constexpr int kGroups = kThreads / d > 0 ? kThreads / d : 1;
  constexpr int kShare = (kRows + kGroups - 1) / kGroups;
  static_assert(d <= kThreads && d % 4 == 0);
  const int column = threadIdx.x % d, first = static_cast<int>(threadIdx.x) / d * kShare;
  const bool live = first < kRows;
  __syncthreads();
  float sum[kShare] = {};
  if (live) {
    for (int k = 0; k < d; k += 4) {
      float m[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) m[i] = matrix[(k + i) * d + column];
#pragma unroll
      for (int r = 0; r < kShare; ++r) {
        if (first + r >= kRows) break;
        const float4 v = *reinterpret_cast<const float4*>(x + (first + r) * d + k);
        sum[r] = fmaf(v.x, m[0], sum[r]);
        sum[r] = fmaf(v.y, m[1], sum[r]);
        sum[r] = fmaf(v.z, m[2], sum[r]);
        sum[r] = fmaf(v.w, m[3], sum[r]);
      }
    }
  }
  __syncthreads();
  if (live) {
#pragma unroll
    for (int r = 0; r < kShare; ++r) {
      if (first + r < kRows) x[(first + r) * d + column] = sum[r];
    }
  }
  __syncthreads();
}

}  // namespace tq::gpu
