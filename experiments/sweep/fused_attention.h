#pragma once

#include "experiments/sweep/configuration.h"
#include "experiments/sweep/fused_reference.h"

namespace tq {

// Fills a cache with the configuration's synthetic tokens, all of them quantised, and judges one decode step
// of fused attention over the codes. Throws SystemError for backend cuda without a GPU.
FusedReport measure_fused(const Configuration& configuration);

}  // namespace tq
