#pragma once

#include <string>
#include <utility>

#include "core/error.h"
#include "jit/driver_api.h"

namespace tq {

// A call of the driver that failed. what(): call, CUDA's name and text of the error, and what was being done;
// for a fault that a kernel left behind, the last launch of this thread as well.
class CudaError : public Error {
 public:
  CudaError(cuda::Result result, const std::string& message);
  cuda::Result result() const { return result_; }

 private:
  cuda::Result result_;
};

namespace cuda {

// `context` follows the call's name: "launch of encode_keys d128, grid 8x1x1, ...". May be empty.
[[noreturn]] void throw_error(Result result, const char* call, const std::string& context = {});
// "CUDA_ERROR_INVALID_VALUE (invalid argument)"
std::string describe(Result result);
void report_ignored_error(Result result, const char* call) noexcept;

// Calls a function of the driver and throws CudaError when it fails.
template <FixedString Name, typename... Args, typename... Given>
void call(const LibraryFunction<Name, Result(Args...)>& function, Given&&... given) {
  const Result result = function(std::forward<Given>(given)...);
  if (result != Result::success) throw_error(result, function.name());
}

// For destructors: a failure goes to stderr, except that of a driver that is shutting down with the process.
template <FixedString Name, typename... Args, typename... Given>
void call_noexcept(const LibraryFunction<Name, Result(Args...)>& function, Given&&... given) noexcept {
  const Result result = function(std::forward<Given>(given)...);
  if (result != Result::success) report_ignored_error(result, function.name());
}

}  // namespace cuda
}  // namespace tq
