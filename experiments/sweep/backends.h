#pragma once

#include <string>
#include <string_view>

#include "calibration/cache_backend.h"

namespace tq {

inline constexpr std::string_view kCudaBackend = "cuda";

// The values of --backend and of the axis `backend`: host and cuda. Throws UsageError that lists them.
std::string canonical_backend(std::string_view name);
// Throws SystemError for cuda without a GPU.
const CacheBackend& cache_backend(std::string_view name);

}  // namespace tq
