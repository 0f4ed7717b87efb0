#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "jit/cubin_cache.h"
#include "jit/device.h"
#include "jit/image_store.h"
#include "jit/kernel.h"
#include "jit/kernel_source.h"
#include "jit/source_tree.h"

namespace tq {

// Kernels for one device, from memory, else from the disk cache, else compiled. Each is loaded once. Safe on
// many threads at once; two threads that ask for different kernels do not wait for each other.
class KernelLoader {
 public:
  // `device` must outlive the loader.
  KernelLoader(const Device& device, SourceTree tree, std::optional<CubinCache> cache = {});

  // Valid while the loader lives. Throws CompileError, CudaError, or SystemError without NVRTC; the next call
  // tries again.
  const Kernel& get(const KernelSource& source);

  const Device& device() const { return device_; }
  // What kernels are compiled from, and for.
  const SourceTree& sources() const { return images_.tree(); }
  const Architecture& architecture() const { return architecture_; }

  struct Stats {
    std::uint64_t compiled = 0, from_disk = 0, from_memory = 0;
    double seconds = 0;  // spent compiling and loading, summed over threads
  };
  Stats stats() const;
  // What is wrong with the disk cache's folder, one line, or empty.
  std::string cache_problem() const { return images_.cache_problem(); }

 private:
  struct Slot {
    std::mutex mutex;
    std::optional<Kernel> kernel;
  };

  const Device& device_;
  Architecture architecture_;
  ImageStore images_;
  mutable std::mutex mutex_;                            // of what follows
  std::map<std::string, std::unique_ptr<Slot>> slots_;  // by cubin_key()
  Stats stats_;
};

}  // namespace tq
