#include <doctest/doctest.h>

#include "jit/compiler.h"
#include "kernel_templates/catalogue.h"
#include "kernel_templates/probes.h"
#include "shared/probe_params.h"
#include "tests/jit/nvrtc_present.h"

TEST_CASE("the probes compile, and keep their loads in registers") {
  if (!tq::test::nvrtc_present()) return;
  for (const tq::KernelSource& source : {tq::gpu::read_probe_kernel(), tq::gpu::empty_kernel()}) {
    for (const tq::Architecture& architecture :
         {tq::Architecture::parse("sm_80"), tq::newest_architecture()}) {
      const tq::CompiledImage image = tq::compile(source, tq::kernel_sources(), architecture);
      CHECK(!image.cubin.empty());
      CHECK(image.usage.spill_store_bytes == 0);
      CHECK(image.usage.stack_frame_bytes == 0);
    }
  }
}
