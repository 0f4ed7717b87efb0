#pragma once

#include <chrono>
#include <cstddef>
#include <string>

#include "calibration/layer_context.h"

namespace tq {

// A bar with the remaining time on stderr when that is a terminal, nothing elsewhere. Shown only once a job
// has run for half a second. Removes itself when destroyed.
class ProgressBar {
 public:
  ProgressBar(std::string label, std::size_t total);
  ~ProgressBar();
  ProgressBar(const ProgressBar&) = delete;
  ProgressBar& operator=(const ProgressBar&) = delete;

  void advance(std::size_t amount);
  // For functions that report what they did; valid while the bar lives.
  Progress callback() {
    return [this](std::size_t amount) { advance(amount); };
  }

 private:
  using Clock = std::chrono::steady_clock;
  std::string label_;
  std::size_t total_, done_ = 0;
  bool terminal_, shown_ = false;
  Clock::time_point start_, last_;
};

}  // namespace tq
