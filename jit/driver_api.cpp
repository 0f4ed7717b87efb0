#include "jit/driver_api.h"

#include <array>

#include "core/error.h"
#include "jit/cuda_error.h"

namespace tq::cuda {
namespace {

constexpr int kOldestDriver = 12000;

std::string version_text(int version) { return fmt::format("{}.{}", version / 1000, version % 1000 / 10); }

SharedLibrary open_driver() {
  const std::array<std::string, 1> names{"libcuda.so.1"};
  return SharedLibrary::open_first(names, "no NVIDIA driver: libcuda.so.1 could not be opened",
                                   "GPU commands need one");
}

DriverApi open_and_initialise() {
  SharedLibrary library = open_driver();
  // Before all other functions are looked up: an old driver lacks some, and its version says more.
  const LibraryFunction<"cuDriverGetVersion", Result(int*)> get_version{library};
  int version = 0;
  if (get_version(&version) == Result::success && version < kOldestDriver) {
    throw SystemError("the NVIDIA driver ({}) supports CUDA {}; {} or newer is needed", library.file(),
                      version_text(version), version_text(kOldestDriver));
  }
  DriverApi api(std::move(library));
  if (const Result result = api.init(0); result != Result::success && result != Result::no_device) {
    const char* name = "an unknown error";
    api.get_error_name(result, &name);
    throw SystemError("the NVIDIA driver ({}) could not be initialised: {}", api.library.file(), name);
  }
  return api;
}

}  // namespace

const DriverApi& driver() {
  static const DriverApi api = open_and_initialise();
  return api;
}

int driver_version() {
  int version = 0;
  call(driver().driver_get_version, &version);
  return version;
}

}  // namespace tq::cuda
