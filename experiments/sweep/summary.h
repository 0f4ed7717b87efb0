#pragma once

#include <map>
#include <string>

#include "experiments/sweep/sweep_plan.h"
#include "experiments/sweep/timings.h"

namespace tq {

// A sweep's results of `measure = quality` as a table for a person: the axes that vary, then mean +-
// half-width (95 %) of every metric, then bytes and the codecs' speeds. Configurations that differ in their
// seed alone are one row, with Student's interval over the seeds; single seeds have that of their line.
// `lines`: result lines by key; configurations without one are left out. `timings`: by key; a configuration
// without one has no speed. Empty when there are none.
std::string summary_table(const SweepPlan& plan, const std::map<std::string, std::string>& lines,
                          const std::map<std::string, Timing>& timings);

}  // namespace tq
