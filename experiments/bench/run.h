#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/random.h"
#include "experiments/bench/report.h"

namespace tq::bench {

// One run of `tq bench`: the device and what is measured on it.
class Run {
 public:
  Run(GpuContext& context, std::uint64_t random_seed)
      : gpu(context),
        seed(random_seed),
        random(random_seed, RandomStream::synthetic),
        timer(context.device()),
        probes(context, timer),
        report(probes) {}

  GpuContext& gpu;
  const std::uint64_t seed;
  Random random;  // a run's inputs: fresh with every seed, the same with the same one
  const Timer timer;
  Probes probes;
  Report report;
};

struct Family {
  const char* name;
  const char* what;
  bool takes_long;  // measured only when it is asked for
  void (*measure)(Run&);
};

const std::vector<Family>& families();

void measure_wht(Run&);
void measure_encode(Run&);
void measure_score(Run&);
void measure_attend(Run&);
void measure_append(Run&);
void measure_prefill(Run&);
void measure_first_use(Run&);
void measure_size(Run&);
void measure_capacity(Run&);

}  // namespace tq::bench
