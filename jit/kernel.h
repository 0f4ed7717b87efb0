#pragma once

#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <type_traits>

#include "jit/compiler.h"
#include "jit/device.h"
#include "jit/driver_api.h"
#include "jit/resource_usage.h"
#include "jit/stream.h"

namespace tq {

struct LaunchShape {
  Dim3 grid, block;
  unsigned shared_bytes = 0;  // dynamic; up to the device's limit with opt-in
  // May begin while the stream's previous kernel ends, where the device can (compute capability 9): the
  // kernel waits itself before it touches what that one may have written (griddepcontrol.wait).
  bool waits_itself = false;
};

// A kernel that is loaded on a device: the only thing that can be launched.
class Kernel {
 public:
  // Throws CudaError naming the label when the device does not take the image.
  Kernel(const Device& device, std::string label, const CompiledImage& image);
  ~Kernel();
  Kernel(Kernel&& other) noexcept;
  Kernel& operator=(Kernel&& other) noexcept;

  const std::string& label() const { return *label_; }
  const ResourceUsage& usage() const { return usage_; }
  // Of its one parameter; nothing with drivers before CUDA 12.4, which cannot tell.
  std::optional<std::size_t> parameter_bytes() const { return parameter_bytes_; }
  // Blocks that fit a multiprocessor at once.
  int max_active_blocks(unsigned block_threads, unsigned shared_bytes) const;

  // What launch() below calls.
  void launch(const LaunchShape& shape, StreamRef stream, const void* parameters, std::size_t bytes) const;

 private:
  std::shared_ptr<const PrimaryContext> context_;
  std::shared_ptr<const std::string> label_;  // shared with the record of the last launch
  ResourceUsage usage_;
  std::optional<std::size_t> parameter_bytes_;
  bool can_overlap_;
  cuda::ModuleHandle module_ = nullptr;
  cuda::FunctionHandle function_ = nullptr;
};

// Every kernel takes exactly one parameter, a struct of this many bytes at most (the limit of CUDA 12.0).
inline constexpr std::size_t kMaxParameterBytes = 4096;

// Throws CudaError naming label, grid, block and shared bytes; UsageError with the same names when the
// struct's size is not that of the kernel's parameter. A grid of no blocks launches nothing.
template <typename Params>
void launch(const Kernel& kernel, const LaunchShape& shape, StreamRef stream, const Params& parameters) {
  static_assert(std::is_trivially_copyable_v<Params> && sizeof(Params) <= kMaxParameterBytes);
  kernel.launch(shape, stream, &parameters, sizeof(Params));
}

}  // namespace tq
