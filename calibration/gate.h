#pragma once

#include "calibration/artefact/artefact.h"
#include "calibration/evaluation.h"

namespace tq {

// Which candidate ships: the data-free default (the first) unless another scores strictly better on held-out
// tokens. Keys are judged by softmax KL, values by attention-output error, both by cosine where no queries
// were captured. Fills `kept` and `reason`.
enum class GateSide { keys, values };
void apply_gate(GateSide side, GateRecord& gate);

// What a record keeps of a measurement; absent vectors score 0.
TableMetrics key_metrics(const LayerMetrics& metrics);
TableMetrics value_metrics(const LayerMetrics& metrics);

}  // namespace tq
