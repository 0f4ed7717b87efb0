#include "experiments/sample.h"

#include <filesystem>

#include "core/error.h"

namespace tq {

std::string sample_capture_path() {
  namespace fs = std::filesystem;
  std::error_code error;
  const fs::path executable = fs::read_symlink("/proc/self/exe", error);
  const fs::path sample =
      executable.parent_path().parent_path() / "share/turboquant-lab/datasets/sample/pylm_d128_sample.kv.h5";
  if (error || !fs::exists(sample)) {
    throw SystemError("the embedded sample is not at {}; reinstall, or name a capture with --capture",
                      sample.string());
  }
  return sample.string();
}

}  // namespace tq
