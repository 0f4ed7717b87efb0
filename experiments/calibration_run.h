#pragma once

#include <string>

#include "calibration/calibrate.h"

namespace tq {

// calibrate() on a capture file by all processes (experiments/processes.h) with a progress bar, the file's
// digest and the run's provenance filled in. Throws UsageError where processes were given different things.
Artefact run_calibration(const std::string& capture_path, const CalibrationOptions& options,
                         const std::string& command_line);

// Fills in what a provenance says of the run: the capture's name and digest, the program, the time, which is
// SOURCE_DATE_EPOCH's where that is set (seconds since 1970), so that the same run can give the same bytes.
void stamp_provenance(Provenance& provenance, const std::string& capture_path,
                      const std::string& capture_sha256, const std::string& command_line);

}  // namespace tq
