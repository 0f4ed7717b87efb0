#pragma once

#include <optional>
#include <string>

#include "jit/device.h"
#include "jit/kernel_loader.h"
#include "kernel_templates/tuning.h"

namespace tq {

struct GpuOptions {
  int ordinal = 0;
  std::string cache_folder;    // of compiled kernels; empty: none
  std::string tuning_file;     // what `tq tune` wrote (tuning_file.h); empty: none
  std::string sources_folder;  // templates to use instead of those built in; empty: those
};

// A device, its kernels, and which blocks suit it.
class GpuContext {
 public:
  explicit GpuContext(const GpuOptions& options);
  const Device& device() const { return device_; }
  KernelLoader& kernels() { return kernels_; }
  // Not to be changed while another thread launches kernels.
  Tuning& tuning() { return tuning_; }
  // Why the tuning file was ignored, one line, or empty.
  const std::string& tuning_problem() const { return tuning_problem_; }

 private:
  Device device_;
  KernelLoader kernels_;
  Tuning tuning_;
  std::string tuning_problem_;
};

}  // namespace tq
