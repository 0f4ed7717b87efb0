#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "calibration/artefact/artefact.h"
#include "calibration/cache_backend.h"
#include "calibration/codecs/storage_codec.h"
#include "calibration/evaluation.h"
#include "calibration/layer_context.h"
#include "calibration/timed_backend.h"

namespace tq {

struct LayerReport {
  int layer = 0;
  int head_dim = 0;
  std::string key, value;   // describe() of the codecs; empty where that side is not quantised
  int bytes_per_token = 0;  // of what is quantised: keys and values of all KV heads
  int fp16_bytes_per_token = 0;
  std::optional<double> alpha;  // prod keys: the one in use, a mean where every KV head has its own
  LayerMetrics metrics, standard_errors;
  CodecTimes key_times, value_times;
};

struct CaptureReport {
  std::vector<LayerReport> layers;
  // Means over layers; bytes and times are sums. Standard errors hold for these layers, not for a draw of
  // layers.
  LayerReport overall;
  // What is stored once however many tokens there are, in bytes; 0 where there is none: rotations and
  // sketches, one a head dimension, and the channels' scales of equalised values, one list a layer and KV
  // head.
  std::size_t rotation_bytes = 0, sketch_bytes = 0, equalisation_bytes = 0;
};

// How the cache of every layer is stored when no artefact says so.
struct CodecOptions {
  KeyConfig key;
  ValueConfig value;
  RotationKind rotation = RotationKind::rht;
  AlphaTarget alpha = AlphaTarget::unbiased;  // others are fitted in place, to all tokens of the layer
  // In place of `alpha`.
  std::optional<double> fixed_alpha = std::nullopt;
  // Group values: see channel_equalisation.h.
  bool equalise_values = false;
  std::uint64_t seed = 0;
  // In place of `key`, of `value`: codecs of calibration/codecs/registry.h.
  std::optional<StorageConfig> key_storage = std::nullopt, value_storage = std::nullopt;
  bool quantise_keys = true, quantise_values = true;  // else that side stays exact and is not counted
};

// Quantises all tokens of a capture, but those that the artefact's policy keeps exact, and measures every
// layer. Throws UsageError where codec and capture do not fit, InputError where the capture or the artefact
// is at fault.
CaptureReport evaluate_capture(CaptureReader& capture, const CodecOptions& options, const Progress& progress,
                               const CacheBackend& backend = host_backend());
CaptureReport evaluate_capture(CaptureReader& capture, const Artefact& artefact, const Progress& progress,
                               const CacheBackend& backend = host_backend());

// The same for layers from anywhere: `open` gives layer 0, 1, ... and need not set rotation and sketch.
CaptureReport evaluate_layers(int num_layers, const std::function<LayerContext(int index)>& open,
                              const CodecOptions& options, const CacheBackend& backend);

}  // namespace tq
