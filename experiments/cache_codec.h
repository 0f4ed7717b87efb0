#pragma once

#include <memory>
#include <vector>

#include "calibration/evaluate_capture.h"
#include "core/cache_layer.h"

namespace tq {

// The codecs that the options name, with the tables that need no data. Throw UsageError for options that do
// not fit head_dim, and for an alpha that is fitted: there is nothing captured to fit it to.
std::shared_ptr<const KeyCodec> make_key_codec(const CodecOptions& options, int head_dim);
std::shared_ptr<const ValueCodec> make_value_codec(const CodecOptions& options, int head_dim);

// Both in each of `layers` layers of a KvCache.
std::vector<CacheLayer> uniform_layers(const CodecOptions& options, int layers, int head_dim,
                                       int num_kv_heads);

}  // namespace tq
