#include "experiments/sweep/backends.h"

#include "core/error.h"

namespace tq {

std::string canonical_backend(std::string_view name) {
  if (name != "host") throw UsageError("backend '{}' is unknown; choose one of: host", name);
  return std::string(name);
}

const CacheBackend& cache_backend(std::string_view) { return host_backend(); }

}  // namespace tq
