#pragma once

#include <string>
#include <string_view>

#include "jit/device.h"
#include "jit/source_tree.h"
#include "kernel_templates/tuning.h"

namespace tq {

// What a tuning holds for: with any of it different, another choice may be the fastest.
struct TuningScope {
  std::string device, compute_capability;  // "9.0"
  int driver_version = 0;
  std::string nvrtc, sources;  // identity; digest
  friend bool operator==(const TuningScope&, const TuningScope&) = default;
};
// Throws SystemError without NVRTC.
TuningScope tuning_scope(const DeviceInfo& device, const SourceTree& sources);

// The text of a tuning file, JSON: tunings of any number of scopes. Entries of other scopes, and those that
// make no sense, are left out. Throws InputError for what is no such text.
Tuning parse_tuning(std::string_view text, const TuningScope& scope);
// `text` with the choices of `added` added to those of its scope, in the place of older ones; other scopes
// stay as they are. A text that parse_tuning() refuses (none at all, say) counts as one without entries.
std::string merge_tuning(std::string_view text, const TuningScope& scope, const Tuning& added);

struct LoadedTuning {
  Tuning tuning;
  std::string problem;  // why the file was ignored, one line; or empty
};
// Never an error: a file that is not there, or not what it should be, is an empty tuning.
LoadedTuning load_tuning(const std::string& path, const TuningScope& scope);

// Beside the compiled kernels: "tuning.json" in their folder. Empty where that is.
std::string tuning_file(const std::string& cache_folder);

}  // namespace tq
