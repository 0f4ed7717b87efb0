#pragma once

#include <vector>

#include "calibration/artefact/artefact.h"
#include "calibration/calibrate.h"
#include "calibration/layer_context.h"

namespace tq {

// Fits alpha alone, to a layer's ready residuals (dataset k_residual, rotated frame), with the default
// codebook, and judges it on held-out residuals by ||r - r^||^2 / ||r||^2. Sets the layer's key tables and
// key gate. Keys must be in prod mode; the targets cos and score need the keys themselves: UsageError.
void calibrate_from_residuals(Capture& capture, const LayerContext& layer, const CalibrationOptions& options,
                              LayerArtefact& result);

}  // namespace tq
