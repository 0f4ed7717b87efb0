#pragma once

#include <cstddef>

#include "datasets/safetensors.h"

namespace tq {

// out[i * n + j] = sum over l of x[i * depth + l] weight[j * depth + l], for i < rows: a linear layer without
// bias. weight: n x depth, of dtype F32, F16 or BF16, widened to float32 a panel at a time. Every sum runs
// over l in order, so results depend on neither the thread count nor how many rows come at a time; nor on the
// SIMD target, but for SSSE3, which has no fused multiply-add. On OpenMP threads.
void multiply(const float* x, std::size_t rows, const SafetensorsTensor& weight, float* out);

}  // namespace tq
