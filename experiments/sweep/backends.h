#pragma once

#include <string>
#include <string_view>

#include "calibration/cache_backend.h"

namespace tq {

// The values of the axis `backend`. Throws UsageError that lists them.
std::string canonical_backend(std::string_view name);
const CacheBackend& cache_backend(std::string_view name);

}  // namespace tq
