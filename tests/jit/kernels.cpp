#include "tests/jit/kernels.h"

#include <fmt/format.h>

namespace tq::test {

SourceTree test_tree() { return SourceTree(embedded_test_sources()); }

KernelSource scale_kernel(int times) {
  return {.label = fmt::format("scale x{}", times),
          .text = "#include \"device/scale.cuh\"\n",
          .name_expression = fmt::format("scale<{}>", times),
          .options = {}};
}

KernelSource local_array_kernel() {
  return {.label = "local_array",
          .text = R"(#include "shared/scale_params.h"
__global__ void local_array(ScaleParams params) {
  __shared__ float shared[128];
  volatile float local[100];
  for (int i = 0; i < 100; ++i) local[i] = params.values[i];
  shared[threadIdx.x % 128] = local[params.count];
  __syncthreads();
  params.values[threadIdx.x] = shared[127 - threadIdx.x % 128];
}
)",
          .name_expression = "local_array",
          .options = {}};
}

}  // namespace tq::test
