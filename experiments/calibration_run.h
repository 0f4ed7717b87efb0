#pragma once

#include <string>

#include "calibration/calibrate.h"

namespace tq {

// calibrate() on a capture file with a progress bar, the file's digest and the run's provenance filled in.
Artefact run_calibration(const std::string& capture_path, Trust trust, const CalibrationOptions& options,
                         const std::string& command_line);

// Fills in what a provenance says of the run: the capture's name and digest, the program, the time.
void stamp_provenance(Provenance& provenance, const std::string& capture_path,
                      const std::string& capture_sha256, const std::string& command_line);

}  // namespace tq
