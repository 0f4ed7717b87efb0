#pragma once

#include "jit/kernel_source.h"

// Kernels that other kernels' times are measured by (device/probes.cuh). The catalogue leaves them out: they
// are no part of the codec.
namespace tq::gpu {

KernelSource read_probe_kernel();
KernelSource empty_kernel();

}  // namespace tq::gpu
