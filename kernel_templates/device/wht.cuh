#pragma once

#include "device/hadamard.cuh"
#include "shared/launch.h"
#include "shared/params.h"

// out = gain H x for every row, in place or not (core/hadamard.h).
namespace tq::gpu {

template <WhtSpec kSpec>
__global__ void __launch_bounds__(kWhtThreads) wht(const __grid_constant__ WhtParams p) {
  using H = Hadamard<kSpec.order>;
  const int lane = threadIdx.x % kLanes, l = lane % H::kWidth;
  const i64 warps = static_cast<i64>(gridDim.x) * (kWhtThreads / kLanes);
  i64 first = (static_cast<i64>(blockIdx.x) * (kWhtThreads / kLanes) + threadIdx.x / kLanes) * H::kRows;
  for (; first < p.rows; first += warps * H::kRows) {
    const i64 row = first + lane / H::kWidth;
    const bool live = row < p.rows;
    typename H::Registers x = {};
    if (live) H::template load<kSpec.element>(p.in, row * kSpec.order, l, x);
    H::template transform<kSpec.transposed>(x, l);
#pragma unroll
    for (int e = 0; e < H::kElements; ++e) x[e] *= p.gain;
    if (live) H::template store<kSpec.element>(p.out, row * kSpec.order, l, x);
  }
}

}  // namespace tq::gpu
