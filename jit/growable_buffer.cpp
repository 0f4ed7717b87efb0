#include <algorithm>
#include <utility>

#include "core/error.h"
#include "jit/cuda_error.h"
#include "jit/memory.h"
#include "jit/out_of_memory.h"

namespace tq {
namespace {

cuda::AllocationProperties properties_on(int ordinal) {
  cuda::AllocationProperties properties{};
  properties.type = cuda::kAllocationPinned;
  properties.location = {cuda::kLocationDevice, ordinal};
  return properties;
}

std::size_t round_up(std::size_t bytes, std::size_t granularity) {
  return (bytes + granularity - 1) / granularity * granularity;
}

// Physical memory; a mapping of it outlives this handle.
class Allocation {
 public:
  Allocation(int ordinal, std::size_t bytes) {
    const cuda::AllocationProperties properties = properties_on(ordinal);
    const cuda::DriverApi& driver = cuda::driver();
    const cuda::Result result = driver.mem_create(&handle_, bytes, &properties, 0ULL);
    if (result == cuda::Result::out_of_memory) throw_out_of_memory(bytes);
    if (result != cuda::Result::success) cuda::throw_error(result, driver.mem_create.name());
  }
  ~Allocation() { cuda::call_noexcept(cuda::driver().mem_release, handle_); }
  Allocation(const Allocation&) = delete;
  Allocation& operator=(const Allocation&) = delete;
  cuda::AllocationHandle handle() const { return handle_; }

 private:
  cuda::AllocationHandle handle_ = 0;
};

}  // namespace

GrowableBuffer::GrowableBuffer(const Device& device, std::size_t max_bytes)
    : context_(device.context()), ordinal_(device.info().ordinal) {
  const CurrentContext current(*context_);
  const cuda::DriverApi& driver = cuda::driver();
  int supported = 0;
  cuda::call(driver.device_get_attribute, &supported, cuda::DeviceAttribute::virtual_memory_management,
             ordinal_);
  if (supported == 0) {
    throw SystemError("{} cannot map memory into reserved addresses, which growing without copying needs",
                      device.info().name);
  }
  const cuda::AllocationProperties properties = properties_on(ordinal_);
  cuda::call(driver.mem_get_allocation_granularity, &granularity_, &properties, cuda::kGranularityMinimum);
  // A range of nothing cannot be reserved.
  reserved_ = std::max(round_up(max_bytes, granularity_), granularity_);
  cuda::call(driver.mem_address_reserve, &address_, reserved_, std::size_t{0}, DeviceAddress{0}, 0ULL);
}

GrowableBuffer::~GrowableBuffer() { release(); }

void GrowableBuffer::release() noexcept {
  if (address_ == 0) return;
  const CurrentContext current(*context_, std::nothrow);
  const cuda::DriverApi& driver = cuda::driver();
  // Unlike cuMemFree, unmapping does not wait for kernels that use the memory.
  cuda::call_noexcept(driver.ctx_synchronize);
  DeviceAddress next = address_;
  for (const std::size_t piece : pieces_) {
    cuda::call_noexcept(driver.mem_unmap, next, piece);
    next += piece;
  }
  cuda::call_noexcept(driver.mem_address_free, address_, reserved_);
  address_ = 0;
}

GrowableBuffer::GrowableBuffer(GrowableBuffer&& other) noexcept
    : context_(std::move(other.context_)),
      ordinal_(other.ordinal_),
      address_(std::exchange(other.address_, 0)),
      reserved_(std::exchange(other.reserved_, 0)),
      size_(std::exchange(other.size_, 0)),
      granularity_(other.granularity_),
      pieces_(std::exchange(other.pieces_, {})) {}

GrowableBuffer& GrowableBuffer::operator=(GrowableBuffer&& other) noexcept {
  std::swap(context_, other.context_);
  std::swap(ordinal_, other.ordinal_);
  std::swap(address_, other.address_);
  std::swap(reserved_, other.reserved_);
  std::swap(size_, other.size_);
  std::swap(granularity_, other.granularity_);
  std::swap(pieces_, other.pieces_);
  return *this;
}

void GrowableBuffer::grow(std::size_t bytes) {
  if (bytes <= size_) return;
  if (bytes > reserved_) {
    throw SystemError("a GPU buffer reserved for {} bytes cannot grow to {}", reserved_, bytes);
  }
  const CurrentContext current(*context_);
  const cuda::DriverApi& driver = cuda::driver();
  const std::size_t piece = round_up(bytes - size_, granularity_);
  pieces_.reserve(pieces_.size() + 1);  // nothing may fail once the piece is mapped
  const Allocation allocation(ordinal_, piece);
  cuda::call(driver.mem_map, address_ + size_, piece, std::size_t{0}, allocation.handle(), 0ULL);
  const cuda::AccessDescription access{{cuda::kLocationDevice, ordinal_}, cuda::kAccessReadWrite};
  if (const cuda::Result result = driver.mem_set_access(address_ + size_, piece, &access, std::size_t{1});
      result != cuda::Result::success) {
    cuda::call_noexcept(driver.mem_unmap, address_ + size_, piece);
    if (result == cuda::Result::out_of_memory) throw_out_of_memory(piece);
    cuda::throw_error(result, driver.mem_set_access.name());
  }
  pieces_.push_back(piece);
  size_ += piece;
}

}  // namespace tq
