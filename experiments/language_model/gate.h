#pragma once

#include <cstddef>

namespace tq {

// x = silu(x) up, silu(x) = x / (1 + e^-x): what SwiGLU's two products become before the third
// (arXiv:2002.05202). To a few units in the last place, which differ by SIMD target.
void gate(float* x, const float* up, std::size_t count);

}  // namespace tq
