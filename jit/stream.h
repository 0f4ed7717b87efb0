#pragma once

#include <functional>
#include <memory>

#include "jit/device.h"
#include "jit/driver_api.h"

namespace tq {

// A stream that somebody else owns: the legacy default stream, a Stream, or another framework's.
class StreamRef {
 public:
  StreamRef() = default;
  explicit StreamRef(cuda::StreamHandle handle) : handle_(handle) {}
  // A CUstream or cudaStream_t as a plain pointer, as Python's frameworks hand it out.
  static StreamRef from_pointer(void* stream) { return StreamRef(static_cast<cuda::StreamHandle>(stream)); }

  cuda::StreamHandle handle() const { return handle_; }
  // Waits for all that was put into the stream. Throws CudaError, also for a fault in a kernel. Needs a
  // current context where this is the default stream.
  void synchronize() const;

 private:
  cuda::StreamHandle handle_ = nullptr;
};

// A stream of our own; it does not wait for the legacy default stream.
class Stream {
 public:
  explicit Stream(const Device& device);
  ~Stream();
  Stream(Stream&& other) noexcept;
  Stream& operator=(Stream&& other) noexcept;

  StreamRef ref() const { return StreamRef(handle_); }
  operator StreamRef() const {
    return ref();
  }  // NOLINT: a Stream is passed wherever a StreamRef is asked for
  void synchronize() const { ref().synchronize(); }

 private:
  std::shared_ptr<const PrimaryContext> context_;
  cuda::StreamHandle handle_ = nullptr;
};

// A point in a stream, with its time.
class Event {
 public:
  explicit Event(const Device& device);
  ~Event();
  Event(Event&& other) noexcept;
  Event& operator=(Event&& other) noexcept;

  void record(StreamRef stream);
  void synchronize() const;
  // `stream` goes on only when this event, as last recorded, has happened.
  void make_wait(StreamRef stream) const;
  // Milliseconds, to about half a microsecond. Both must have happened.
  static float elapsed_ms(const Event& start, const Event& end);

 private:
  std::shared_ptr<const PrimaryContext> context_;
  cuda::EventHandle handle_ = nullptr;
};

// Work recorded once and replayed with one launch.
class Graph {
 public:
  // Records what `work` puts into `stream` (not the default stream), which does not run. No kernel may be
  // loaded and no memory allocated in it. What `work` throws goes on to the caller.
  static Graph capture(const Device& device, const Stream& stream, const std::function<void()>& work);
  ~Graph();
  Graph(Graph&& other) noexcept;
  Graph& operator=(Graph&& other) noexcept;

  void launch(StreamRef stream) const;

 private:
  Graph(std::shared_ptr<const PrimaryContext> context, cuda::GraphExecHandle handle);

  std::shared_ptr<const PrimaryContext> context_;
  cuda::GraphExecHandle handle_ = nullptr;
};

}  // namespace tq
