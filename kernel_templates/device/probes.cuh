#pragma once

#include "device/ptx.cuh"
#include "shared/probe_params.h"

// What other kernels' times are measured by: memory read as fast as it can be, and a launch that does
// nothing.
namespace tq::gpu {

// The sum makes the loads necessary, and shows that all of them happened.
__global__ void __launch_bounds__(kProbeThreads) read_probe(const __grid_constant__ ReadProbeParams p) {
  const u8* data = static_cast<const u8*>(p.data);
  u32 sum = 0;
  for (i64 at = static_cast<i64>(blockIdx.x) * kProbeBlockBytes; at < p.bytes;
       at += static_cast<i64>(gridDim.x) * kProbeBlockBytes) {
    Vector4 v[kProbeLoads];
#pragma unroll
    for (int i = 0; i < kProbeLoads; ++i)
      v[i] = load_stream16(data + at + (i * kProbeThreads + static_cast<int>(threadIdx.x)) * 16);
#pragma unroll
    for (int i = 0; i < kProbeLoads; ++i) sum += v[i].x[0] + v[i].x[1] + v[i].x[2] + v[i].x[3];
  }
#pragma unroll
  for (int mask = 1; mask < kLanes; mask <<= 1) sum += __shfl_xor_sync(kFullWarp, sum, mask);
  if (threadIdx.x % kLanes == 0) atomicAdd(p.sum, sum);
}

__global__ void empty(const __grid_constant__ EmptyParams) {}

}  // namespace tq::gpu
