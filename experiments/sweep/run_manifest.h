#pragma once

#include <chrono>
#include <nlohmann/json.hpp>
#include <string>

#include "experiments/sweep/configuration.h"
#include "experiments/sweep/sweep_plan.h"
#include "jit/device.h"

namespace tq {

// How a run shares its work.
struct RunShape {
  std::size_t jobs = 1;  // configurations at a time, in all processes
  int processes = 1;
  nlohmann::ordered_json
      shard;  // of separate runs: index, count, and the whole sweep's size and digest; null
};

// FOLDER/manifest.json: where a sweep's numbers come from. Every run (the first, and each --resume) adds an
// entry to "runs": the program, the machine, the command line, the GPU where one is used, the
// inputs' digests, the seeds, when and for how long. A run that was killed has no end.
class RunManifest {
 public:
  // Writes the entry of a run that begins; `gpu` is null for one that uses none. Throws InputError when the
  // file there is no manifest.
  RunManifest(const std::string& folder, const std::string& command_line, const SweepPlan& plan,
              const InputCatalogue& catalogue, const RunShape& shape, const DeviceInfo* gpu);
  // Which run this is, from 0.
  std::size_t run() const { return manifest_["runs"].size() - 1; }
  // Adds the end, and how many configurations the run measured.
  void finish(std::size_t measured);

 private:
  std::string path_;
  nlohmann::ordered_json manifest_;
  std::chrono::steady_clock::time_point begin_;
};

}  // namespace tq
