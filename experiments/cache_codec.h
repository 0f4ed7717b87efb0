#pragma once

#include <vector>

#include "calibration/evaluate_capture.h"
#include "core/cache_layer.h"

namespace tq {

// The same codec in each of `layers` layers of a KvCache. Throws UsageError for an alpha that is fitted:
// there is nothing captured to fit it to.
std::vector<CacheLayer> uniform_layers(const CodecOptions& options, int layers, int head_dim,
                                       int num_kv_heads);

}  // namespace tq
