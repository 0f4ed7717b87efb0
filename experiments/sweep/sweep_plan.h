#pragma once

#include <array>
#include <string>
#include <utility>
#include <vector>

#include "experiments/sweep/axes.h"
#include "experiments/sweep/configuration.h"

namespace tq {

// A combination to leave out: every named axis has one of the values.
using ExcludeRule = std::vector<std::pair<Axis, std::vector<std::string>>>;

// "key-mode=prod & key-bits=1,2". Throws UsageError. A rule is held against effective values: an axis that
// makes no difference matches nothing.
ExcludeRule parse_exclude_rule(std::string_view text);

struct SweepPlan {
  std::vector<Configuration> configurations;  // in the order of the product's loops, each key once
  std::size_t excluded = 0, repeated = 0;     // points of the product that were left out
};

// SHA-256 of the configurations' keys, in their order.
std::string plan_digest(const SweepPlan& plan);

// The product of the axes' values, in the order of enum Axis, less what the rules exclude. Throws UsageError
// as configure() does.
SweepPlan plan_sweep(const std::array<std::vector<std::string>, kAxes>& values,
                     const std::vector<ExcludeRule>& rules, InputCatalogue& inputs);

}  // namespace tq
