#include "jit/device.h"

#include <array>
#include <utility>

#include "core/error.h"
#include "jit/cuda_error.h"

namespace tq {
namespace {

int attribute(cuda::DeviceAttribute which, cuda::DeviceOrdinal device) {
  int value = 0;
  cuda::call(cuda::driver().device_get_attribute, &value, which, device);
  return value;
}

DeviceInfo read_info(int ordinal, cuda::DeviceOrdinal device) {
  using cuda::DeviceAttribute;
  const auto size = [&](DeviceAttribute which) { return static_cast<std::size_t>(attribute(which, device)); };
  const auto extent = [&](DeviceAttribute which) { return static_cast<unsigned>(attribute(which, device)); };
  DeviceInfo info;
  info.ordinal = ordinal;
  std::array<char, 256> name{};
  cuda::call(cuda::driver().device_get_name, name.data(), static_cast<int>(name.size()), device);
  info.name = name.data();
  info.architecture = {attribute(DeviceAttribute::compute_capability_major, device),
                       attribute(DeviceAttribute::compute_capability_minor, device)};
  info.multiprocessors = attribute(DeviceAttribute::multiprocessor_count, device);
  info.l2_bytes = size(DeviceAttribute::l2_bytes);
  info.shared_bytes_per_block = size(DeviceAttribute::max_shared_bytes_per_block_optin);
  cuda::call(cuda::driver().device_total_mem, &info.total_bytes, device);
  info.max_grid = {extent(DeviceAttribute::max_grid_x), extent(DeviceAttribute::max_grid_y),
                   extent(DeviceAttribute::max_grid_z)};
  info.driver_version = cuda::driver_version();
  return info;
}

}  // namespace

PrimaryContext::PrimaryContext(cuda::DeviceOrdinal device) : device_(device) {
  cuda::call(cuda::driver().device_primary_ctx_retain, &handle_, device);
}

PrimaryContext::~PrimaryContext() { cuda::call_noexcept(cuda::driver().device_primary_ctx_release, device_); }

int Device::count() {
  // A driver without a device fails its initialisation, and every call after it.
  int number = 0;
  const cuda::Result result = cuda::driver().device_get_count(&number);
  return result == cuda::Result::success ? number : 0;
}

Device Device::open(int ordinal) {
  const int found = count();
  if (found == 0) throw SystemError("no GPU: the NVIDIA driver finds none; GPU commands need one");
  if (ordinal < 0 || ordinal >= found) {
    throw SystemError("there is no GPU {}; this machine has {}, counted from 0", ordinal, found);
  }
  cuda::DeviceOrdinal device = 0;
  cuda::call(cuda::driver().device_get, &device, ordinal);
  return Device(read_info(ordinal, device), std::make_shared<const PrimaryContext>(device));
}

Device::Device(DeviceInfo info, std::shared_ptr<const PrimaryContext> context)
    : info_(std::move(info)), context_(std::move(context)) {}

std::size_t Device::free_bytes() const {
  const CurrentContext current(*this);
  std::size_t free = 0, total = 0;
  cuda::call(cuda::driver().mem_get_info, &free, &total);
  return free;
}

void Device::synchronize() const {
  const CurrentContext current(*this);
  cuda::call(cuda::driver().ctx_synchronize);
}

CurrentContext::CurrentContext(const PrimaryContext& context) {
  cuda::ContextHandle current = nullptr;
  cuda::call(cuda::driver().ctx_get_current, &current);
  if (current == context.handle()) return;
  cuda::call(cuda::driver().ctx_push_current, context.handle());
  pushed_ = true;
}

CurrentContext::CurrentContext(const PrimaryContext& context, std::nothrow_t) noexcept {
  cuda::ContextHandle current = nullptr;
  if (cuda::driver().ctx_get_current(&current) == cuda::Result::success && current != context.handle()) {
    pushed_ = cuda::driver().ctx_push_current(context.handle()) == cuda::Result::success;
  }
}

CurrentContext::~CurrentContext() {
  cuda::ContextHandle popped = nullptr;
  if (pushed_) cuda::call_noexcept(cuda::driver().ctx_pop_current, &popped);
}

}  // namespace tq
