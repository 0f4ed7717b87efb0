#include "experiments/first_gpu.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdio>

#include "experiments/processes.h"
#include "jit/cubin_cache.h"
#include "kernel_templates/tuning_file.h"

namespace tq {

FirstGpu::FirstGpu()
    : GpuContext({.ordinal = local_rank() % std::max(1, Device::count()),
                  .cache_folder = default_cache_folder(),
                  .tuning_file = tuning_file(default_cache_folder()),
                  .sources_folder = {}}) {
  if (!tuning_problem().empty()) fmt::print(stderr, "tq: {}\n", tuning_problem());
}

}  // namespace tq
