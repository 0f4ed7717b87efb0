#include "kernel_templates/shapes.h"

#include <fmt/ranges.h>

#include <algorithm>

#include "core/error.h"

namespace tq::gpu {

void require_kernels(int head_dim) {
  if (std::find(kGpuHeadDims.begin(), kGpuHeadDims.end(), head_dim) == kGpuHeadDims.end()) {
    throw UsageError("no GPU kernels for head_dim {}: they are made for {}", head_dim,
                     fmt::join(kGpuHeadDims, ", "));
  }
}

void require_kernels(const KeyConfig& keys, int head_dim) {
  require_kernels(head_dim);
  if (keys.bits > kGpuMaxBits) {
    throw UsageError("no GPU kernels for {} keys: they take up to {} bits", tq::describe(keys), kGpuMaxBits);
  }
}

void require_kernels(const ValueConfig& values, int head_dim) {
  require_kernels(head_dim);
  if (values.mode == ValueMode::rotated) {
    if (values.bits <= kGpuMaxBits) return;
    throw UsageError("no GPU kernels for {} values: they take up to {} bits", tq::describe(values),
                     kGpuMaxBits);
  }
  if (std::find(kGpuGroupSizes.begin(), kGpuGroupSizes.end(), values.group_size) == kGpuGroupSizes.end()) {
    throw UsageError("no GPU kernels for {} values: groups of {}", tq::describe(values),
                     fmt::join(kGpuGroupSizes, ", "));
  }
}

}  // namespace tq::gpu
