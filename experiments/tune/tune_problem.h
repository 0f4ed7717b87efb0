#pragma once

#include <string>
#include <vector>

#include "experiments/tune/problem.h"

namespace tq::tune {

struct Candidate {
  BlockChoice choice;
  double median_us = 0;
};

// What was measured of a problem. Nothing is chosen where the untuned kernel's own result was wrong.
struct Outcome {
  bool untuned_holds = true;
  Candidate untuned, best;
  std::vector<Candidate> measured;    // as they came
  std::vector<std::string> failures;  // one line each: candidates left out, and why

  // Of the untuned time, 0 where `best` is the untuned choice.
  double gain() const { return 1 - best.median_us / untuned.median_us; }
};

// Compiles all candidates of the problems, on all cores. What does not compile fails again, and is reported,
// when it is measured.
void compile_candidates(GpuContext& gpu, const std::vector<Problem>& problems);

// Checks each candidate's result against float64, then times it. Leaves the problem's entry in the context's
// tuning changed. Throws what the untuned kernel's launch throws.
Outcome tune_problem(bench::Run& run, const Problem& problem, const bench::TokenSource& source);

}  // namespace tq::tune
