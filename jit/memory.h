#pragma once

#include <cstddef>
#include <memory>
#include <ranges>
#include <type_traits>
#include <vector>

#include "jit/device.h"
#include "jit/driver_api.h"
#include "jit/stream.h"

namespace tq {

using DeviceAddress = cuda::DeviceAddress;

// Device memory of a fixed size. Running out of it throws SystemError with the bytes asked for and free, and
// leaves the process as it was. Aligned to 256 bytes. Freeing waits for the work that uses it.
class DeviceBuffer {
 public:
  DeviceBuffer() = default;
  // 0 bytes: no memory, address 0.
  DeviceBuffer(const Device& device, std::size_t bytes);
  ~DeviceBuffer();
  DeviceBuffer(DeviceBuffer&& other) noexcept;
  DeviceBuffer& operator=(DeviceBuffer&& other) noexcept;

  DeviceAddress address() const { return address_; }
  std::size_t bytes() const { return bytes_; }
  // The address as a kernel parameter.
  template <typename T>
  T* as() const {
    return reinterpret_cast<T*>(address_);
  }

 private:
  std::shared_ptr<const PrimaryContext> context_;
  DeviceAddress address_ = 0;
  std::size_t bytes_ = 0;
};

// Device memory that grows at its end without moving: a range of addresses is reserved for the maximum,
// memory is mapped into it as it is needed. What is stored stays where it is, untouched, and kernels that
// read it may run meanwhile.
class GrowableBuffer {
 public:
  // Reserves addresses for `max_bytes` (rounded up to granularity()), no memory yet. Throws SystemError where
  // the device cannot do it.
  GrowableBuffer(const Device& device, std::size_t max_bytes);
  // Waits for the device's work.
  ~GrowableBuffer();
  GrowableBuffer(GrowableBuffer&& other) noexcept;
  GrowableBuffer& operator=(GrowableBuffer&& other) noexcept;

  // Afterwards at least `bytes` are mapped; new memory is not initialised. Throws SystemError when `bytes` is
  // over max_bytes() or there is not enough memory; what was mapped before stays.
  void grow(std::size_t bytes);

  DeviceAddress address() const { return address_; }
  std::size_t size() const { return size_; }  // bytes mapped, a multiple of granularity()
  std::size_t max_bytes() const { return reserved_; }
  std::size_t granularity() const { return granularity_; }
  template <typename T>
  T* as() const {
    return reinterpret_cast<T*>(address_);
  }

 private:
  void release() noexcept;

  std::shared_ptr<const PrimaryContext> context_;
  int ordinal_ = 0;
  DeviceAddress address_ = 0;
  std::size_t reserved_ = 0, size_ = 0, granularity_ = 0;
  std::vector<std::size_t> pieces_;  // bytes of each mapping, in order
};

// Copies and fills between host and device, in a stream. They need a current context where the stream is the
// default one, and throw CudaError.
void upload_bytes(DeviceAddress to, const void* from, std::size_t bytes, StreamRef stream);
void download_bytes(void* to, DeviceAddress from, std::size_t bytes, StreamRef stream);

// Returns when `from` may be reused.
template <std::ranges::contiguous_range Range>
void upload(DeviceAddress to, const Range& from, StreamRef stream = {}) {
  static_assert(std::is_trivially_copyable_v<std::ranges::range_value_t<Range>>);
  upload_bytes(to, std::ranges::data(from), std::ranges::size(from) * sizeof(*std::ranges::data(from)),
               stream);
}

// Returns when `to` holds the data: waits for the stream.
template <std::ranges::contiguous_range Range>
void download(Range&& to, DeviceAddress from, StreamRef stream = {}) {
  static_assert(std::is_trivially_copyable_v<std::ranges::range_value_t<Range>>);
  download_bytes(std::ranges::data(to), from, std::ranges::size(to) * sizeof(*std::ranges::data(to)), stream);
}

// These two return at once and may be captured in a Graph.
void copy_on_device(DeviceAddress to, DeviceAddress from, std::size_t bytes, StreamRef stream = {});
void fill(DeviceAddress to, unsigned char value, std::size_t bytes, StreamRef stream = {});

}  // namespace tq
