#pragma once

#include <cstddef>
#include <vector>

namespace tq {

// out[i] = x[i] / sqrt(mean over j of x[i][j]^2 + eps) * weight (Zhang and Sennrich, arXiv:1910.07467). x,
// out: rows x width, width the weight's size; out may be x. On OpenMP threads.
void rms_norm(const float* x, std::size_t rows, const std::vector<float>& weight, double eps, float* out);

}  // namespace tq
