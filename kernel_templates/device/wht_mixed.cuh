#pragma once

#include "device/element.cuh"
#include "device/paley.cuh"
#include "shared/launch.h"
#include "shared/params.h"

// out = gain H x for orders with several Paley factors: a row in shared memory, one factor a pass.
namespace tq::gpu {

// The factors of core/hadamard.h's plan, leftmost first; `sylvester` the last one.
template <WhtSpec kSpec, int kSylvester, int... kPaleys>
__global__ void __launch_bounds__(kMixedThreads) wht_mixed(const __grid_constant__ WhtParams p) {
  constexpr int d = kSpec.order;
  float* row = reinterpret_cast<float*>(dynamic_shared);
  for (i64 r = blockIdx.x; r < p.rows; r += gridDim.x) {
    for (int i = threadIdx.x; i < d; i += kMixedThreads)
      row[i] = load_element<kSpec.element>(p.in, r * d + i);
    __syncthreads();
    for (int h = 1; h < kSylvester; h <<= 1) {
      for (int i = threadIdx.x; i < d / 2; i += kMixedThreads) {
        const int a = i / h * 2 * h + i % h;
        const float x = row[a], y = row[a + h];
        row[a] = x + y;
        row[a + h] = x - y;
      }
      __syncthreads();
    }
    int stride = d;
    (
        [&] {
          stride /= kPaleys;
          for (int fibre = threadIdx.x; fibre < d / kPaleys; fibre += kMixedThreads) {
            const int first = fibre / stride * stride * kPaleys + fibre % stride;
            float x[kPaleys];
#pragma unroll
            for (int i = 0; i < kPaleys; ++i) x[i] = row[first + i * stride];
            paley_transform<kPaleys, kSpec.transposed, 1>(x, 0);
#pragma unroll
            for (int i = 0; i < kPaleys; ++i) row[first + i * stride] = x[i];
          }
          __syncthreads();
        }(),
        ...);
    for (int i = threadIdx.x; i < d; i += kMixedThreads)
      store_element<kSpec.element>(p.out, r * d + i, row[i] * p.gain);
    __syncthreads();
  }
}

}  // namespace tq::gpu
