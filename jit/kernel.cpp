#include "jit/kernel.h"

#include <fmt/format.h>

#include <stdexcept>
#include <utility>

#include "jit/cuda_error.h"
#include "jit/launch_record.h"

namespace tq {
namespace {

// Of the first parameter; nothing when the driver cannot tell. Throws logic_error when there is none.
std::optional<std::size_t> read_parameter_bytes(cuda::FunctionHandle function, const std::string& label) {
  const auto& get_info = cuda::driver().func_get_param_info;
  if (!get_info) return std::nullopt;
  std::size_t offset = 0, bytes = 0;
  if (get_info(function, 0, &offset, &bytes) != cuda::Result::success)
    throw std::logic_error(fmt::format("kernel {} takes no parameter", label));
  return bytes;
}

}  // namespace

Kernel::Kernel(const Device& device, std::string label, const CompiledImage& image)
    : context_(device.context()),
      label_(std::make_shared<const std::string>(std::move(label))),
      usage_(image.usage),
      can_overlap_(device.info().architecture.major >= 9) {
  const CurrentContext current(*context_);
  const cuda::DriverApi& driver = cuda::driver();
  if (const cuda::Result result = driver.module_load_data(&module_, image.cubin.data());
      result != cuda::Result::success) {
    const int version = device.info().driver_version;
    cuda::throw_error(result, driver.module_load_data.name(),
                      fmt::format("loading kernel {} on {} ({}, driver for CUDA {}.{}; a compiler of a newer "
                                  "major version makes images that it does not take)",
                                  *label_, device.info().name, to_string(device.info().architecture),
                                  version / 1000, version % 1000 / 10));
  }
  try {
    if (const cuda::Result result =
            driver.module_get_function(&function_, module_, image.lowered_name.c_str());
        result != cuda::Result::success) {
      cuda::throw_error(result, driver.module_get_function.name(),
                        fmt::format("kernel {}: {}", *label_, image.lowered_name));
    }
    parameter_bytes_ = read_parameter_bytes(function_, *label_);
    // Once for all launches. It is only a permission: what a launch does not ask for stays L1 cache.
    int fixed = 0;
    cuda::call(driver.func_get_attribute, &fixed, cuda::FunctionAttribute::static_shared_bytes, function_);
    cuda::call(driver.func_set_attribute, function_, cuda::FunctionAttribute::max_dynamic_shared_bytes,
               static_cast<int>(device.info().shared_bytes_per_block) - fixed);
  } catch (...) {
    cuda::call_noexcept(driver.module_unload, module_);
    throw;
  }
}

Kernel::~Kernel() {
  if (module_ == nullptr) return;
  const CurrentContext current(*context_, std::nothrow);
  cuda::call_noexcept(cuda::driver().module_unload, module_);
}

Kernel::Kernel(Kernel&& other) noexcept
    : context_(std::move(other.context_)),
      label_(std::move(other.label_)),
      usage_(other.usage_),
      parameter_bytes_(other.parameter_bytes_),
      can_overlap_(other.can_overlap_),
      module_(std::exchange(other.module_, nullptr)),
      function_(std::exchange(other.function_, nullptr)) {}

Kernel& Kernel::operator=(Kernel&& other) noexcept {
  std::swap(context_, other.context_);
  std::swap(label_, other.label_);
  std::swap(usage_, other.usage_);
  std::swap(parameter_bytes_, other.parameter_bytes_);
  std::swap(can_overlap_, other.can_overlap_);
  std::swap(module_, other.module_);
  std::swap(function_, other.function_);
  return *this;
}

int Kernel::max_active_blocks(unsigned block_threads, unsigned shared_bytes) const {
  const CurrentContext current(*context_);
  int blocks = 0;
  cuda::call(cuda::driver().occupancy_max_active_blocks, &blocks, function_, static_cast<int>(block_threads),
             std::size_t{shared_bytes});
  return blocks;
}

void Kernel::launch(const LaunchShape& shape, StreamRef stream, const void* parameters,
                    std::size_t bytes) const {
  if (shape.grid.x == 0 || shape.grid.y == 0 || shape.grid.z == 0) return;
  if (parameter_bytes_ && *parameter_bytes_ != bytes) {
    throw std::logic_error(fmt::format("kernel {}: takes a parameter of {} bytes and was given {}",
                                       describe_launch(*label_, shape), *parameter_bytes_, bytes));
  }
  const CurrentContext current(*context_);
  const cuda::DriverApi& driver = cuda::driver();
  // The driver copies the parameter and does not write to it.
  void* arguments[] = {const_cast<void*>(parameters)};
  cuda::LaunchAttribute overlap{};
  overlap.id = cuda::kProgrammaticStreamSerialization;
  overlap.value.programmatic_stream_serialization_allowed = 1;
  const cuda::LaunchConfig config{shape.grid.x,       shape.grid.y,
                                  shape.grid.z,       shape.block.x,
                                  shape.block.y,      shape.block.z,
                                  shape.shared_bytes, stream.handle(),
                                  &overlap,           can_overlap_ && shape.waits_itself ? 1U : 0U};
  const cuda::Result result = driver.launch_kernel(&config, function_, arguments, nullptr);
  if (result != cuda::Result::success) {
    cuda::throw_error(result, driver.launch_kernel.name(), "kernel " + describe_launch(*label_, shape));
  }
  record_launch(label_, shape);
}

}  // namespace tq
