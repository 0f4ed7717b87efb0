#pragma once

#include "kernel_templates/gpu_context.h"

namespace tq {

// The machine's first GPU, and in the second process of an mpirun on it the second, and so on round; its
// compiled kernels in default_cache_folder() and its tuning beside them; a tuning file that had to be ignored
// is one line on stderr. Throws SystemError where there is no GPU.
class FirstGpu : public GpuContext {
 public:
  FirstGpu();
};

}  // namespace tq
