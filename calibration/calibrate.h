#pragma once

#include <cstdint>
#include <string>

#include "calibration/artefact/artefact.h"
#include "calibration/artefact/shard.h"
#include "calibration/layer_context.h"
#include "calibration/process_group.h"
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

// All that decides what calibrate() makes of a capture, on one line: "keys mse 3 nc, values rotated 3 nc,
// ...".
std::string describe(const CalibrationOptions& options);

// Fits every layer's tables on the fit tokens, judges them against the data-free default on the held-out
// tokens (calibration/gate.h), and returns the artefact with the evidence; provenance holds the token counts
// only. Layers that store k_residual instead of k get a fitted alpha alone. Memory does not grow with the
// capture. Throws UsageError where the codec does not fit the capture's head_dim, InputError where the
// capture is at fault.
//
// Collective: the processes of `group` share the work, and each gets the artefact that one process gets, bit
// for bit. They form teams, one a layer at a time. In a team every member collects statistics from its blocks
// of tokens, which are merged exactly before a table is fitted to them, and judges the tables on its KV
// heads. With a shard, the artefact has the shard's layers alone.
Artefact calibrate(Capture& capture, const CalibrationOptions& options, const Progress& progress,
                   const ProcessGroup& group = one_process(), const Shard& shard = {});

// Tokens that calibrate() will report to its progress in one process, or in the first of a group.
std::size_t calibration_work(const CaptureInfo& info, const CalibrationOptions& options,
                             const ProcessGroup& group = one_process(), const Shard& shard = {});

}  // namespace tq
