#pragma once

#include "shared/empty.h"
#include "shared/scale_params.h"

// Not ASCII: 2 · π. Not a list: a;b;[c];"d\\e".
template <int kTimes>
__global__ void scale(ScaleParams params) {
  const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (i >= params.count) return;
  float value = params.values[i];
  for (int time = 0; time < kTimes; ++time) value *= params.factor;
  params.values[i] = value;
}
