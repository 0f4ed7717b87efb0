#pragma once

#include <cstdint>
#include <memory>

#include "calibration/artefact/artefact.h"
#include "calibration/layer_context.h"
#include "calibration/token_split.h"
#include "core/codec_config.h"
#include "datasets/capture.h"

namespace tq {

struct CalibrationOptions {
  KeyConfig key;
  ValueConfig value;
  RotationKind rotation = RotationKind::rht;
  AlphaTarget alpha = AlphaTarget::mse;  // prod keys only
  bool per_head = false;                 // tables by KV head instead of by layer
  std::uint64_t seed = 0;                // of the rotation and the sketch
  Holdout holdout = Holdout::tail;
};

// Fits every layer's tables on the fit tokens, judges them against the data-free default on the held-out
// tokens (calibration/gate.h), and returns the artefact with the evidence; provenance holds the token counts
// only. Layers that store k_residual instead of k get a fitted alpha alone. Memory does not grow with the
// capture. Throws UsageError where the codec does not fit the capture's head_dim, InputError where the
// capture is at fault.
Artefact calibrate(CaptureReader& capture, const CalibrationOptions& options, const Progress& progress);

// Tokens that calibrate() will report to its progress.
std::size_t calibration_work(const CaptureInfo& info, const CalibrationOptions& options);

}  // namespace tq
