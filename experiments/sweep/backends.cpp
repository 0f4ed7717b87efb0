#include "experiments/sweep/backends.h"

#include "core/error.h"
#include "experiments/cuda_backend.h"

namespace tq {

std::string canonical_backend(std::string_view name) {
  if (name != "host" && name != kCudaBackend) {
    throw UsageError("backend '{}' is unknown; choose one of: host, {}", name, kCudaBackend);
  }
  return std::string(name);
}

const CacheBackend& cache_backend(std::string_view name) {
  return name == kCudaBackend ? cuda_backend() : host_backend();
}

}  // namespace tq
