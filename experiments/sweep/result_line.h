#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "calibration/evaluate_capture.h"
#include "experiments/sweep/configuration.h"

namespace tq {

// Half of the interval that holds 95 % of a normal distribution, in standard errors.
inline constexpr double kHalfWidth = 1.959963984540054;

// What every result line's first bytes are, before the 64 digits of its key.
inline constexpr std::string_view kLineStart = R"({"key":")";

// The line of a measured configuration, without its newline: a function of the configuration alone, so it
// holds no times. Metrics are {"mean", "half_width"}; half_width is 95 %: 1.96 standard errors of one seed
// (see LayerEvaluation::standard_errors), null where there is none. Bytes are those of all KV heads of all
// layers, of what is quantised; the padded ones count key indices as upstream's table does, at no fewer than
// four bits. "alpha" is there for prod keys, "rotation_bytes", "sketch_bytes" and "equalisation_bytes" for
// codecs that store such things once, whatever the number of tokens.
std::string result_line(const Configuration& configuration, const CaptureReport& report);

}  // namespace tq
