#pragma once

#include "device/element.cuh"
#include "device/tile_words.cuh"
#include "shared/launch.h"

// New tokens into a cache's binary16 window.
namespace tq::gpu {

// Blocks (token, head, sequence).
__global__ void __launch_bounds__(kAppendThreads) append(const __grid_constant__ AppendParams p) {
  const int i = blockIdx.x, head = blockIdx.y, sequence = blockIdx.z;
  const TokenRange range = p.ranges[sequence];
  if (i >= range.count) return;
  int slot = range.first + i;
  if (range.ring != 0) slot = range.ring_begin + (slot - range.ring_begin) % range.ring;
  const i64 from = sequence * p.x.sequence_stride + head * p.x.head_stride +
                   (static_cast<i64>(range.source) + i) * p.x.token_stride;
  u16* to = p.out + sequence * p.out_sequence_stride + head * p.out_head_stride + slot * p.out_token_stride;
  for (int j = threadIdx.x; j < p.head_dim; j += kAppendThreads)
    to[j] = float_to_half_saturate(load_element(p.element, p.x.data, from + j));
}

}  // namespace tq::gpu
