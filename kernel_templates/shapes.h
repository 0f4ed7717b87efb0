#pragma once

#include <array>

#include "core/codec_config.h"

// What the codec's kernels are made for; the WHT takes every order of core/hadamard.h.
namespace tq::gpu {

inline constexpr std::array kGpuHeadDims{64, 80, 96, 128, 192, 256};
inline constexpr std::array kGpuGroupSizes{16, 32, 64, 128};
inline constexpr int kGpuMaxBits = 4;  // of keys, the sign bit included, and of rotated values
inline constexpr int kMaxGroup = 16;   // query heads a KV head

// Throw UsageError, naming what there is, for a codec that has no kernels. Need no GPU.
void require_kernels(int head_dim);
void require_kernels(const KeyConfig& keys, int head_dim);
void require_kernels(const ValueConfig& values, int head_dim);

}  // namespace tq::gpu
