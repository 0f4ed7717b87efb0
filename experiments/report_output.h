#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "calibration/artefact/artefact.h"
#include "calibration/evaluate_capture.h"

// Results as tables for people and JSON for programs. A metric that could not be measured is "-" and null.
namespace tq {

// Codecs stand above the table where all layers have the same, else in its rows.
std::string report_table(const CaptureReport& report);
nlohmann::ordered_json report_json(const CaptureReport& report);

// What calibration decided, layer by layer.
std::string gate_table(const Artefact& artefact);
nlohmann::ordered_json gate_json(const Artefact& artefact);
// One of the two on stdout, the table with where the artefact was written.
void print_calibration(const Artefact& artefact, const std::string& out, bool json);

}  // namespace tq
