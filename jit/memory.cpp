#include "jit/memory.h"

#include <utility>

#include "core/error.h"
#include "jit/cuda_error.h"
#include "jit/out_of_memory.h"

namespace tq {

DeviceBuffer::DeviceBuffer(const Device& device, std::size_t bytes)
    : context_(device.context()), bytes_(bytes) {
  if (bytes == 0) return;
  const CurrentContext current(*context_);
  const cuda::DriverApi& driver = cuda::driver();
  const cuda::Result result = driver.mem_alloc(&address_, bytes);
  if (result == cuda::Result::out_of_memory) throw_out_of_memory(bytes);
  if (result != cuda::Result::success) cuda::throw_error(result, driver.mem_alloc.name());
}

DeviceBuffer::~DeviceBuffer() {
  if (address_ == 0) return;
  const CurrentContext current(*context_, std::nothrow);
  cuda::call_noexcept(cuda::driver().mem_free, address_);
}

DeviceBuffer::DeviceBuffer(DeviceBuffer&& other) noexcept
    : context_(std::move(other.context_)),
      address_(std::exchange(other.address_, 0)),
      bytes_(std::exchange(other.bytes_, 0)) {}

DeviceBuffer& DeviceBuffer::operator=(DeviceBuffer&& other) noexcept {
  std::swap(context_, other.context_);
  std::swap(address_, other.address_);
  std::swap(bytes_, other.bytes_);
  return *this;
}

void upload_bytes(DeviceAddress to, const void* from, std::size_t bytes, StreamRef stream) {
  if (bytes == 0) return;
  cuda::call(cuda::driver().memcpy_htod_async, to, from, bytes, stream.handle());
  // Pinned memory is read after the call has returned.
  stream.synchronize();
}

void download_bytes(void* to, DeviceAddress from, std::size_t bytes, StreamRef stream) {
  if (bytes == 0) return;
  cuda::call(cuda::driver().memcpy_dtoh_async, to, from, bytes, stream.handle());
  stream.synchronize();
}

void copy_on_device(DeviceAddress to, DeviceAddress from, std::size_t bytes, StreamRef stream) {
  if (bytes == 0) return;
  cuda::call(cuda::driver().memcpy_dtod_async, to, from, bytes, stream.handle());
}

void fill(DeviceAddress to, unsigned char value, std::size_t bytes, StreamRef stream) {
  if (bytes == 0) return;
  cuda::call(cuda::driver().memset_d8_async, to, value, bytes, stream.handle());
}

}  // namespace tq
