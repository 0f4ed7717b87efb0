#include "kernel_templates/gpu_context.h"

#include "kernel_templates/catalogue.h"

namespace tq {

GpuContext::GpuContext(const GpuOptions& options)
    : device_(Device::open(options.ordinal)),
      kernels_(
          device_,
          options.sources_folder.empty() ? kernel_sources() : SourceTree::from_folder(options.sources_folder),
          options.cache_folder.empty() ? std::nullopt
                                       : std::make_optional<CubinCache>(options.cache_folder)) {}

}  // namespace tq
