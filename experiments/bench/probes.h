#pragma once

#include <map>
#include <nlohmann/json.hpp>

#include "experiments/bench/timing.h"
#include "kernel_templates/gpu_context.h"

namespace tq::bench {

// What this device does at best, measured in the same run as what is compared with it.
class Probes {
 public:
  // Throws SystemError when the read probe's sum is not that of the buffer.
  Probes(GpuContext& gpu, const Timer& timer);

  double bytes_per_us() const { return read_bytes_ / read_.median_us; }
  // A kernel of nothing: one of many launches, and a launch on its own (Timer).
  const Timing& empty_launch() const { return empty_; }
  const Timing& empty_launch_alone() const { return empty_alone_; }
  // Time of a device copy that reads and writes `bytes` in all; measured once a size.
  double copy_us(double bytes);

  nlohmann::ordered_json json();

 private:
  GpuContext& gpu_;
  const Timer& timer_;
  double read_bytes_;
  Timing read_, empty_, empty_alone_;
  std::map<double, double> copies_;
};

}  // namespace tq::bench
