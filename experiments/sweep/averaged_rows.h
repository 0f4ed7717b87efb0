#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "experiments/sweep/result_rows.h"

namespace tq {

// Rows that differ in their seed alone, as one: the configuration without the seed; values, also those of
// layers, as means over the seeds. A value that a seed lacks is left out.
struct AveragedRow {
  ResultRow row;
  std::size_t seeds = 0;
};

// In the order of the rows.
std::vector<AveragedRow> average_over_seeds(const std::vector<const ResultRow*>& rows);

// The mean of several seeds with Student's 95 % interval over them. One seed, and what is the same for every
// seed (as bytes are), keeps its own half-width.
Estimate mean_over_seeds(const std::vector<Estimate>& seeds);

// As many decimals as show the half-width with two digits: "0.9329 +- 0.0011" with "+-" for `sign`; what
// has none, and small numbers, by their first digits.
std::string to_string(const Estimate& estimate, std::string_view sign);

}  // namespace tq
