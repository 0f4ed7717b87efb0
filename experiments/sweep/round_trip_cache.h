#pragma once

#include <memory>

#include "calibration/evaluate_capture.h"
#include "core/cache_policy.h"
#include "experiments/language_model/attention_cache.h"

namespace tq {

// A cache for what KvCache does not store: registered codecs (calibration/codecs/registry.h), and sides that
// stay exact. Tokens are where KvCache would have them, and attention sees of the quantised ones what the
// codecs leave; both are held as float32. Throws UsageError for codecs that do not fit the model, and for an
// alpha that is fitted.
std::unique_ptr<AttentionCache> round_trip_cache(const ModelConfig& config, const CodecOptions& codec,
                                                 const CachePolicy& policy);

}  // namespace tq
