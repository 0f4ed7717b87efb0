#pragma once

#include <memory>
#include <vector>

#include "experiments/language_model/attention_cache.h"

namespace tq {

// host_cache() on the first GPU: tokens go into gpu::GpuKvCache one at a time, each followed by its
// attention, as while a model generates. What attention rounds there (queries to binary16) shows in the
// results. Throws UsageError for codecs and shapes that have no kernels, SystemError where there is no GPU.
std::unique_ptr<AttentionCache> cuda_cache(const ModelConfig& config, std::vector<CacheLayer> layers,
                                           const CachePolicy& policy);

}  // namespace tq
