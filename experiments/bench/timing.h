#pragma once

#include <functional>
#include <vector>

#include "jit/device.h"
#include "jit/stream.h"

namespace tq::bench {

// Of one launch (or call), over repeated measurements.
struct Timing {
  double median_us = 0, p5_us = 0, p95_us = 0;
  int launches = 1;  // in one measurement
  int copies = 1;    // of the inputs, which they take in turn
};

// Median and percentiles of measured times in microseconds, each of `launches` launches.
Timing summary(std::vector<double> times_us, int launches, int copies);

// Puts the work on one copy of the inputs into the stream. The first call may compile and allocate.
using Launch = std::function<void(int copy, StreamRef stream)>;

class Timer {
 public:
  explicit Timer(const Device& device) : device_(device), stream_(device) {}
  const Device& device() const { return device_; }
  const Stream& stream() const { return stream_; }

  // Copies of inputs of which one launch touches `bytes`, so that all of them are several times the L2 cache:
  // what a launch reads was evicted since it was last touched. At most some hundred megabytes beside one
  // copy.
  int copies(double bytes) const;

  // Launches back to back in one CUDA graph: what one of many costs.
  Timing throughput(int copies, const Launch& launch) const;
  // A graph of one launch, from an idle stream to its end. With one copy its inputs are in L2 where they fit
  // (warm), with copies() of them they are not (cold).
  Timing latency(int copies, const Launch& launch) const;
  // For what copies from the host or waits for the device, so that no graph holds it: microseconds by the
  // host's clock from before `work` until the stream is done.
  double wall_us(const std::function<void()>& work) const;

 private:
  const Device& device_;
  Stream stream_;
};

}  // namespace tq::bench
