#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace tq {

// One way to store one item, and what it costs.
struct PricedChoice {
  std::int64_t bytes = 0;  // at least 0
  double harm = 0;         // finite; harms of different items add up
};

// One choice for every item such that the sum of harms is the least that `budget` bytes allow, and of those
// the sum of bytes the least: exact, by dynamic programming over the bytes beyond every item's cheapest
// choice, in units of their greatest common divisor (the multiple-choice knapsack problem: Kellerer, Pferschy
// and Pisinger, Knapsack Problems, 2004, chapter 11). Time and memory: items x units (x choices, for time).
// Every item has at least one choice. Returns the index of each item's choice; throws UsageError that names
// the least budget where `budget` is below it.
std::vector<std::size_t> least_harm(const std::vector<std::vector<PricedChoice>>& items, std::int64_t budget);

}  // namespace tq
