#pragma once

#include "shared/types.h"

// What the kernels of device/probes.cuh take, and how they are launched.
namespace tq::gpu {

inline constexpr int kProbeThreads = 256;
// Loads of 16 bytes that a thread has in flight: with a full multiprocessor's threads many times the 20 KB
// that 3 TB/s take at the latency of device memory.
inline constexpr int kProbeLoads = 4;
// What a block reads at a time; a buffer is a multiple of it.
inline constexpr int kProbeBlockBytes = kProbeThreads * kProbeLoads * 16;

struct ReadProbeParams {
  const void* data;
  i64 bytes;
  u32* sum;  // of all 32-bit words is added to it, modulo 2^32
};

struct EmptyParams {
  int unused;
};

}  // namespace tq::gpu
