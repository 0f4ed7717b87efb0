#pragma once

#include <map>
#include <string>

#include "experiments/sweep/sweep_plan.h"

namespace tq {

// The result line of `measure = capacity`, as result_line(): bytes are those of a token in all KV heads, and
// the metrics are the tokens that the share of the memory holds, rounded down: with these codecs, with key
// indices padded as upstream does, and in FP16.
std::string capacity_line(const Configuration& configuration);

// A row a configuration, for a person; empty when none is of this kind. `lines`: result lines by key, one for
// every configuration of the plan.
std::string capacity_table(const SweepPlan& plan, const std::map<std::string, std::string>& lines);

}  // namespace tq
