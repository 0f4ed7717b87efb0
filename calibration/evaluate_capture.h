#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "calibration/artefact/artefact.h"
#include "calibration/evaluation.h"
#include "calibration/layer_context.h"

namespace tq {

struct LayerReport {
  int layer = 0;
  int head_dim = 0;
  std::string key, value;   // describe() of the codecs; empty where the capture has no such tensor
  int bytes_per_token = 0;  // keys and values of all KV heads
  int fp16_bytes_per_token = 0;
  LayerMetrics metrics;
};

struct CaptureReport {
  std::vector<LayerReport> layers;
  LayerReport overall;  // means over layers; bytes are sums
};

// How the cache of every layer is stored when no artefact says so.
struct CodecOptions {
  KeyConfig key;
  ValueConfig value;
  RotationKind rotation = RotationKind::rht;
  AlphaTarget alpha = AlphaTarget::unbiased;  // others are fitted in place, to all tokens of the layer
  std::uint64_t seed = 0;
};

// Quantises all tokens of a capture and measures every layer. Throws UsageError where codec and capture do
// not fit, InputError where the capture or the artefact is at fault.
CaptureReport evaluate_capture(CaptureReader& capture, const CodecOptions& options, const Progress& progress);
CaptureReport evaluate_capture(CaptureReader& capture, const Artefact& artefact, const Progress& progress);

}  // namespace tq
