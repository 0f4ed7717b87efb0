#pragma once

#include <optional>
#include <string>

#include "jit/device.h"
#include "jit/kernel_loader.h"

namespace tq {

struct GpuOptions {
  int ordinal = 0;
  std::string cache_folder;    // of compiled kernels; empty: none
  std::string sources_folder;  // templates to use instead of those built in; empty: those
};

// A device and its kernels.
class GpuContext {
 public:
  explicit GpuContext(const GpuOptions& options);
  const Device& device() const { return device_; }
  KernelLoader& kernels() { return kernels_; }

 private:
  Device device_;
  KernelLoader kernels_;
};

}  // namespace tq
