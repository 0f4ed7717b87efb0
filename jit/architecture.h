#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace tq {

// A real GPU architecture.
struct Architecture {
  int major = 0, minor = 0;
  bool specific = false;  // the suffix "a": all of this one's features, and it runs on no other

  // "sm_90", "sm_90a", "sm_120". Throws UsageError for anything else.
  static Architecture parse(std::string_view text);
  friend auto operator<=>(const Architecture&, const Architecture&) = default;
};

std::string to_string(const Architecture& architecture);

// What this NVRTC compiles for, ascending, without the suffix. These throw SystemError as nvrtc::api() does.
std::vector<Architecture> supported_architectures();
Architecture newest_architecture();
// The newest that NVRTC knows and `device` runs: itself, or an older minor version of the same major one (an
// NVRTC older than the device). Throws SystemError when there is none.
Architecture best_architecture_for(const Architecture& device);

}  // namespace tq
