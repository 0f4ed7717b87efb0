#pragma once

#include <string>
#include <vector>

#include "calibration/calibrate.h"

namespace tq {

// calibrate() on capture files, as one corpus, by all processes (experiments/processes.h) with a progress
// bar, the files' digests and the run's provenance filled in. Throws UsageError where processes were given
// different things.
ArtefactShard run_calibration(const std::vector<std::string>& captures, Trust trust,
                              const CalibrationOptions& options, const std::string& command_line,
                              const Shard& shard = {});

// Fills in what a provenance says of the run: the captures' names and digests, in their order with ", "
// between them, the program, the time, which is SOURCE_DATE_EPOCH's where that is set (seconds since 1970),
// so that the same run can give the same bytes.
void stamp_provenance(Provenance& provenance, const std::vector<std::string>& captures,
                      const std::vector<std::string>& sha256, const std::string& command_line);

}  // namespace tq
