#include "experiments/tune/tune_problem.h"

#include <fmt/format.h>

#include <algorithm>
#include <exception>
#include <map>

#include "core/error.h"
#include "experiments/bench/score_case.h"
#include "experiments/progress_bar.h"
#include "shared/types.h"

namespace tq::tune {
namespace {

constexpr int kCheckedHeads = 2;
// Less than this is within what medians of two runs differ by.
constexpr double kLeastGain = 0.01;

int shared_limit(const GpuContext& gpu) {
  return static_cast<int>(gpu.device().info().shared_bytes_per_block);
}

// Blocks that fill the device once.
int slots_of(GpuContext& gpu, const Problem& problem, const BlockChoice& choice) {
  const Kernel& kernel = gpu.kernels().get(kernel_source(problem, choice));
  const int resident = kernel.max_active_blocks(static_cast<unsigned>(choice.warps * gpu::kLanes),
                                                static_cast<unsigned>(shared_bytes(problem, choice)));
  return gpu.device().info().multiprocessors * std::max(1, resident);
}

template <typename Case>
Outcome tune_case(bench::Run& run, const Problem& problem, Case subject) {
  Outcome outcome;
  const auto use = [&](const BlockChoice& choice) { run.gpu.tuning().set(problem.key, choice); };
  const auto time = [&](const BlockChoice& choice) {
    use(choice);
    return run.timer.throughput(subject.copies(), subject.launch()).median_us;
  };
  const auto check = [&](const BlockChoice& choice) {
    use(choice);
    return subject.check(kCheckedHeads);
  };
  const auto fail = [&](const BlockChoice& choice, const std::string& why) {
    outcome.failures.push_back(fmt::format("{} {}, {}: {}", problem.key.kernel,
                                           bench::describe(problem.shape), describe(choice), why));
  };
  const auto fail_check = [&](const BlockChoice& choice, const bench::Check& found) {
    fail(choice, fmt::format("{} {:.2e}, at most {:.0e}", found.measure, found.value, found.limit));
  };

  const BlockChoice untuned = untuned_choice(problem, shared_limit(run.gpu));
  if (const bench::Check found = check(untuned); !found.holds()) {
    fail_check(untuned, found);
    outcome.untuned_holds = false;
    return outcome;
  }
  outcome.untuned = outcome.best = {untuned, time(untuned)};
  outcome.measured.push_back(outcome.untuned);
  for (const BlockChoice& block : block_candidates(problem, shared_limit(run.gpu))) {
    try {
      for (const BlockChoice& choice : with_block_counts(block, run.gpu.device().info().multiprocessors,
                                                         slots_of(run.gpu, problem, block))) {
        if (choice == untuned) continue;
        if (const bench::Check found = check(choice); !found.holds()) {
          fail_check(choice, found);
          continue;
        }
        outcome.measured.push_back({choice, time(choice)});
        if (outcome.measured.back().median_us < outcome.best.median_us)
          outcome.best = outcome.measured.back();
      }
    } catch (const Error& error) {
      fail(block, error.what());
    }
  }
  if (outcome.best.choice == untuned) return outcome;
  // The first of many is in part the luckiest, so it is timed again, next to what it is to beat.
  outcome.untuned.median_us = time(untuned);
  outcome.best.median_us = time(outcome.best.choice);
  if (outcome.gain() < kLeastGain) outcome.best = outcome.untuned;
  return outcome;
}

}  // namespace

void compile_candidates(GpuContext& gpu, const std::vector<Problem>& problems) {
  std::map<std::string, KernelSource> by_name;
  for (const Problem& problem : problems) {
    std::vector<BlockChoice> choices = block_candidates(problem, shared_limit(gpu));
    choices.push_back(untuned_choice(problem, shared_limit(gpu)));
    for (const BlockChoice& choice : choices) {
      const KernelSource source = kernel_source(problem, choice);
      by_name.emplace(source.name_expression, source);
    }
  }
  std::vector<KernelSource> sources;
  for (auto& [name, source] : by_name) sources.push_back(std::move(source));
  ProgressBar bar("compiling", sources.size());
#pragma omp parallel for schedule(dynamic)
  for (std::size_t i = 0; i < sources.size(); ++i) {
    try {
      gpu.kernels().get(sources[i]);
    } catch (const std::exception&) {
      // No exception leaves a parallel region.
    }
#pragma omp critical
    bar.advance(1);
  }
}

Outcome tune_problem(bench::Run& run, const Problem& problem, const bench::TokenSource& source) {
  if (problem.is_scores())
    return tune_case(run, problem, bench::ScoreCase(run, problem.shape, problem.codecs, source));
  return tune_case(run, problem, bench::AttendCase(run, problem.shape, problem.codecs, source));
}

}  // namespace tq::tune
