#pragma once

#include <array>

// What the codec's kernels are made for; the WHT takes every order of core/hadamard.h.
namespace tq::gpu {

inline constexpr std::array kGpuHeadDims{64, 80, 96, 128, 192, 256};
inline constexpr int kMaxGroup = 16;  // query heads a KV head

}  // namespace tq::gpu
