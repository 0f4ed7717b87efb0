#pragma once

#include <map>
#include <string>

#include "experiments/language_model/perplexity.h"
#include "experiments/sweep/sweep_plan.h"

namespace tq {

// The result line of `measure = perplexity`, as result_line(): half widths are 1.96 standard errors over
// windows; metrics that begin with far_ are of the positions that see codes, and are missing where there are
// none.
std::string perplexity_line(const Configuration& configuration, const PerplexityReport& report);

// A row a configuration, for a person; empty when none is of this kind. `lines`: result lines by key, one for
// every configuration of the plan.
std::string perplexity_table(const SweepPlan& plan, const std::map<std::string, std::string>& lines);

}  // namespace tq
