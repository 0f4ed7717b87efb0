#include <utility>

#include "jit/cuda_error.h"
#include "jit/stream.h"

namespace tq {
namespace {

struct RecordedGraph {
  RecordedGraph() = default;
  ~RecordedGraph() {
    if (handle != nullptr) cuda::call_noexcept(cuda::driver().graph_destroy, handle);
  }
  RecordedGraph(const RecordedGraph&) = delete;
  RecordedGraph& operator=(const RecordedGraph&) = delete;
  cuda::GraphHandle handle = nullptr;
};

}  // namespace

Graph::Graph(std::shared_ptr<const PrimaryContext> context, cuda::GraphExecHandle handle)
    : context_(std::move(context)), handle_(handle) {}

Graph Graph::capture(const Device& device, const Stream& stream, const std::function<void()>& work) {
  const CurrentContext current(device);
  const cuda::StreamHandle handle = stream.ref().handle();
  RecordedGraph recorded;
  // Thread-local: what other threads of the process do meanwhile (allocate, say) does not spoil the
  // recording.
  cuda::call(cuda::driver().stream_begin_capture, handle, cuda::kCaptureThreadLocal);
  try {
    work();
  } catch (...) {
    // The stream must leave capture mode; that the recording is invalid then is no news.
    cuda::driver().stream_end_capture(handle, &recorded.handle);
    throw;
  }
  cuda::call(cuda::driver().stream_end_capture, handle, &recorded.handle);
  cuda::GraphExecHandle executable = nullptr;
  cuda::call(cuda::driver().graph_instantiate, &executable, recorded.handle, 0ULL);
  return Graph(device.context(), executable);
}

Graph::~Graph() {
  if (handle_ == nullptr) return;
  const CurrentContext current(*context_, std::nothrow);
  cuda::call_noexcept(cuda::driver().graph_exec_destroy, handle_);
}

Graph::Graph(Graph&& other) noexcept
    : context_(std::move(other.context_)), handle_(std::exchange(other.handle_, nullptr)) {}

Graph& Graph::operator=(Graph&& other) noexcept {
  std::swap(context_, other.context_);
  std::swap(handle_, other.handle_);
  return *this;
}

void Graph::launch(StreamRef stream) const {
  const CurrentContext current(*context_);
  cuda::call(cuda::driver().graph_launch, handle_, stream.handle());
}

}  // namespace tq
