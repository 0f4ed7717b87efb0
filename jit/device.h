#pragma once

#include <cstddef>
#include <memory>
#include <new>
#include <string>

#include "jit/architecture.h"
#include "jit/driver_api.h"

namespace tq {

struct Dim3 {
  unsigned x = 1, y = 1, z = 1;
};

struct DeviceInfo {
  int ordinal = 0;
  std::string name;
  Architecture architecture;
  int multiprocessors = 0;
  std::size_t l2_bytes = 0;
  std::size_t shared_bytes_per_block = 0;  // with opt-in: static and dynamic together
  std::size_t total_bytes = 0;
  Dim3 max_grid;
  int driver_version = 0;  // 12040: CUDA 12.4
};

// A device's primary context, retained: the one that every framework of the process uses, so memory, streams
// and modules are shared with them. Released when the Device and all that was made with it are gone.
class PrimaryContext {
 public:
  explicit PrimaryContext(cuda::DeviceOrdinal device);
  ~PrimaryContext();
  PrimaryContext(const PrimaryContext&) = delete;
  PrimaryContext& operator=(const PrimaryContext&) = delete;
  cuda::ContextHandle handle() const { return handle_; }

 private:
  cuda::DeviceOrdinal device_;
  cuda::ContextHandle handle_ = nullptr;
};

// One GPU. All functions throw SystemError without a driver and CudaError when a call fails.
class Device {
 public:
  // 0 where there is a driver and no device. Throws SystemError where there is no driver.
  static int count();
  // Throws SystemError when there is no such device.
  static Device open(int ordinal = 0);

  Device(Device&&) noexcept = default;
  Device& operator=(Device&&) noexcept = default;

  const DeviceInfo& info() const { return info_; }
  std::size_t free_bytes() const;
  // Waits for all work of all streams.
  void synchronize() const;

  const std::shared_ptr<const PrimaryContext>& context() const { return context_; }

 private:
  Device(DeviceInfo info, std::shared_ptr<const PrimaryContext> context);

  DeviceInfo info_;
  std::shared_ptr<const PrimaryContext> context_;
};

// While it lives, the device's primary context is this thread's current one. Costs nothing where it already
// is (another framework's thread). The types of jit/ make it current themselves; a caller needs it around
// calls that take only a stream or an address.
class CurrentContext {
 public:
  explicit CurrentContext(const Device& device) : CurrentContext(*device.context()) {}
  explicit CurrentContext(const PrimaryContext& context);
  // For destructors: with a driver that is shutting down, what follows fails and is ignored.
  CurrentContext(const PrimaryContext& context, std::nothrow_t) noexcept;
  ~CurrentContext();
  CurrentContext(const CurrentContext&) = delete;
  CurrentContext& operator=(const CurrentContext&) = delete;

 private:
  bool pushed_ = false;
};

}  // namespace tq
