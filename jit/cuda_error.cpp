#include "jit/cuda_error.h"

#include <cstdio>

#include "jit/launch_record.h"

namespace tq {

CudaError::CudaError(cuda::Result result, const std::string& message)
    : Error(ExitCode::system, message), result_(result) {}

namespace cuda {
namespace {

// Faults of a running kernel. They show at a later call, which has nothing to do with them.
bool is_left_by_a_kernel(Result result) {
  return result == Result::ecc_uncorrectable ||
         (result >= Result::illegal_address && result <= Result::launch_failed);
}

}  // namespace

std::string describe(Result result) {
  const char *name = nullptr, *text = nullptr;
  driver().get_error_name(result, &name);
  driver().get_error_string(result, &text);
  if (name == nullptr || text == nullptr) return fmt::format("CUDA error {}", static_cast<int>(result));
  return fmt::format("{} ({})", name, text);
}

void throw_error(Result result, const char* call, const std::string& context) {
  std::string message = fmt::format("{}: {}", call, describe(result));
  if (!context.empty()) message += "; " + context;
  if (is_left_by_a_kernel(result)) {
    if (const std::string last = last_launch(); !last.empty()) message += "; last launch: " + last;
  }
  throw CudaError(result, message);
}

void report_ignored_error(Result result, const char* call) noexcept {
  if (result == Result::deinitialized || result == Result::context_is_destroyed) return;
  std::fprintf(stderr, "tq: %s failed with CUDA error %d while releasing a resource\n", call,
               static_cast<int>(result));
}

}  // namespace cuda
}  // namespace tq
