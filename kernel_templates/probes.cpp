#include "kernel_templates/probes.h"

namespace tq::gpu {

KernelSource read_probe_kernel() {
  return {"read probe", "#include \"device/probes.cuh\"\n", "tq::gpu::read_probe", {}};
}
KernelSource empty_kernel() { return {"empty", "#include \"device/probes.cuh\"\n", "tq::gpu::empty", {}}; }

}  // namespace tq::gpu
