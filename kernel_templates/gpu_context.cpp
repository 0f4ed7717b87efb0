#include "kernel_templates/gpu_context.h"

#include <filesystem>
#include <utility>

#include "kernel_templates/catalogue.h"
#include "kernel_templates/tuning_file.h"

namespace tq {

GpuContext::GpuContext(const GpuOptions& options)
    : device_(Device::open(options.ordinal)),
      kernels_(
          device_,
          options.sources_folder.empty() ? kernel_sources() : SourceTree::from_folder(options.sources_folder),
          options.cache_folder.empty() ? std::nullopt
                                       : std::make_optional<CubinCache>(options.cache_folder)) {
  std::error_code ignored;
  if (!std::filesystem::is_regular_file(options.tuning_file, ignored)) return;
  LoadedTuning loaded = load_tuning(options.tuning_file, tuning_scope(device_.info(), kernels_.sources()));
  tuning_ = std::move(loaded.tuning);
  tuning_problem_ = std::move(loaded.problem);
}

}  // namespace tq
