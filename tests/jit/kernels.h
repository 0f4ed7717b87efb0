#pragma once

#include <span>
#include <string>

#include "jit/kernel_source.h"
#include "jit/source_tree.h"

namespace tq {
std::span<const EmbeddedFile> embedded_test_sources();
}

namespace tq::test {

// The twin of embedded/shared/scale_params.h.
struct ScaleParams {
  float* values;
  float factor;
  int count;
};

SourceTree test_tree();
// values[i] *= factor^times
KernelSource scale_kernel(int times = 1);
// A kernel whose local array cannot live in registers; it takes a ScaleParams.
KernelSource local_array_kernel();

}  // namespace tq::test
