#pragma once

#include <map>
#include <string>

#include "experiments/sweep/fused_reference.h"
#include "experiments/sweep/sweep_plan.h"

namespace tq {

// The result line of a configuration that was measured with `measure = fused`, as result_line(): its metrics
// are numbers (null for NaN), and "pass" says whether they are good enough.
std::string fused_line(const Configuration& configuration, const FusedReport& report);

struct FusedSummary {
  std::string table;   // a row a configuration, for a person; empty when none is of this kind
  bool passed = true;  // that every row does
};
// `lines`: result lines by key, one for every configuration of the plan.
FusedSummary fused_summary(const SweepPlan& plan, const std::map<std::string, std::string>& lines);

}  // namespace tq
