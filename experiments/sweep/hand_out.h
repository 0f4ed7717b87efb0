#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "calibration/process_group.h"
#include "experiments/sweep/measurer.h"
#include "experiments/sweep/sweep_plan.h"

// How the first of several processes has configurations measured by the others: it hands one to whoever is
// free, so that a slow process gets fewer.
namespace tq {

// A thread of a process that measures.
struct Worker {
  int rank = 0;
  int channel = 0;  // of its messages; counts the workers of a process
};

// Collective. The workers of all processes, each of which has up to `own_jobs` of its own, in turns between
// the processes; as many as there are `configurations` at most, a number that the first process gives.
std::vector<Worker> share_workers(const ProcessGroup& group, int own_jobs, std::size_t configurations);

// Collective. Throws UsageError where a process has another plan than the first.
void require_same_plan(const ProcessGroup& group, const SweepPlan& plan);

// In the first process: what a worker of another measures. Throws what it failed with, as an Error of the
// same exit code.
Measured measure_at(const Worker& worker, const Configuration& configuration);
// In the first process, at the end: lets the workers of all others go.
void release(const std::vector<Worker>& workers);
// In the others: measures what the first process asks for, on as many threads as it has workers, until it
// lets them go.
void serve(int rank, const std::vector<Worker>& workers, const SweepPlan& plan, Trust trust);

}  // namespace tq
