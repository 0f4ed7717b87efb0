#pragma once

#include <string>

#include "experiments/sweep/configuration.h"
#include "experiments/sweep/data_source.h"
#include "experiments/sweep/model_source.h"
#include "experiments/sweep/timings.h"

namespace tq {

struct Measured {
  std::string line;  // of results.jsonl
  Timing timing;
};

// Measures configurations on data and models that it keeps for the next ones. Safe to share between threads.
class Measurer {
 public:
  // Data and models are made on `threads` threads.
  Measurer(int threads, Trust trust) : sources_(threads, trust), models_(threads) {}
  // `progress` gets the configuration's `work`, in parts.
  Measured measure(const Configuration& configuration, const Progress& progress);

 private:
  DataSources sources_;
  ModelSources models_;
};

}  // namespace tq
