#pragma once

#include "calibration/cache_backend.h"
#include "kernel_templates/gpu_context.h"

namespace tq {

// The FirstGpu. Opened by the first call, so that what does without a GPU never looks for one. Throws
// SystemError where there is none.
GpuContext& default_gpu();

// The codecs on that GPU: codes and reconstructions are the host's within float32 rounding. So are scores:
// they are float32 dot products with the reconstructions, since the kernels that read codes directly round
// queries to binary16. What those give is measured by a sweep with `measure = fused`.
const CacheBackend& cuda_backend();

}  // namespace tq
