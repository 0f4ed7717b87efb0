#include "jit/stream.h"

#include <utility>

#include "jit/cuda_error.h"

namespace tq {

void StreamRef::synchronize() const { cuda::call(cuda::driver().stream_synchronize, handle_); }

Stream::Stream(const Device& device) : context_(device.context()) {
  const CurrentContext current(*context_);
  cuda::call(cuda::driver().stream_create, &handle_, cuda::kStreamNonBlocking);
}

Stream::~Stream() {
  if (handle_ == nullptr) return;
  const CurrentContext current(*context_, std::nothrow);
  cuda::call_noexcept(cuda::driver().stream_destroy, handle_);
}

Stream::Stream(Stream&& other) noexcept
    : context_(std::move(other.context_)), handle_(std::exchange(other.handle_, nullptr)) {}

Stream& Stream::operator=(Stream&& other) noexcept {
  std::swap(context_, other.context_);
  std::swap(handle_, other.handle_);
  return *this;
}

Event::Event(const Device& device) : context_(device.context()) {
  const CurrentContext current(*context_);
  cuda::call(cuda::driver().event_create, &handle_, 0U);
}

Event::~Event() {
  if (handle_ == nullptr) return;
  const CurrentContext current(*context_, std::nothrow);
  cuda::call_noexcept(cuda::driver().event_destroy, handle_);
}

Event::Event(Event&& other) noexcept
    : context_(std::move(other.context_)), handle_(std::exchange(other.handle_, nullptr)) {}

Event& Event::operator=(Event&& other) noexcept {
  std::swap(context_, other.context_);
  std::swap(handle_, other.handle_);
  return *this;
}

void Event::record(StreamRef stream) {
  const CurrentContext current(*context_);
  cuda::call(cuda::driver().event_record, handle_, stream.handle());
}

void Event::synchronize() const { cuda::call(cuda::driver().event_synchronize, handle_); }

void Event::make_wait(StreamRef stream) const {
  const CurrentContext current(*context_);
  cuda::call(cuda::driver().stream_wait_event, stream.handle(), handle_, 0U);
}

float Event::elapsed_ms(const Event& start, const Event& end) {
  float milliseconds = 0;
  cuda::call(cuda::driver().event_elapsed_time, &milliseconds, start.handle_, end.handle_);
  return milliseconds;
}

}  // namespace tq
