#include <doctest/doctest.h>

#include "jit/resource_usage.h"

using tq::parse_ptxas_log;
using tq::ResourceUsage;

TEST_CASE("ptxas's report is read") {
  const auto usage = parse_ptxas_log(
      "kernel.cu(3): warning #177-D: variable \"unused\" was declared but never referenced\n"
      "ptxas info    : 0 bytes gmem, 24 bytes cmem[4]\n"
      "ptxas info    : Compiling entry function '_Z1kILi128EEv1P' for 'sm_90'\n"
      "ptxas info    : Function properties for _Z1kILi128EEv1P\n"
      "ptxas         .     400 bytes stack frame, 12 bytes spill stores, 8 bytes spill loads\n"
      "ptxas info    : Used 32 registers, used 1 barriers, 400 bytes cumulative stack size, 512 bytes smem, "
      "360 bytes cmem[0], 8 bytes cmem[2]\n"
      "ptxas info    : Compile time = 9.814 ms",
      "_Z1kILi128EEv1P");
  REQUIRE(usage);
  CHECK(*usage == ResourceUsage{.registers = 32,
                                .spill_store_bytes = 12,
                                .spill_load_bytes = 8,
                                .stack_frame_bytes = 400,
                                .static_shared_bytes = 512,
                                .constant_bytes = 368});
}

TEST_CASE("only the kernel's own numbers count") {
  // Two entry functions, one's name the start of the other's, and a function that is not inlined.
  const char* log =
      "ptxas info    : Compiling entry function 'kernel_2' for 'sm_80'\n"
      "ptxas info    : Function properties for kernel_2\n"
      "    16 bytes stack frame, 16 bytes spill stores, 16 bytes spill loads\n"
      "ptxas info    : Function properties for helper\n"
      "    99 bytes stack frame, 99 bytes spill stores, 99 bytes spill loads\n"
      "ptxas info    : Used 20 registers\n"
      "ptxas info    : Compiling entry function 'kernel' for 'sm_80'\n"
      "ptxas info    : Function properties for kernel\n"
      "    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads\n"
      "ptxas info    : Used 8 registers\n";
  const auto first = parse_ptxas_log(log, "kernel_2"), second = parse_ptxas_log(log, "kernel");
  REQUIRE(first);
  REQUIRE(second);
  CHECK(first->registers == 20);
  CHECK(first->stack_frame_bytes == 16);
  CHECK(second->registers == 8);
  CHECK(second->stack_frame_bytes == 0);
  CHECK(!parse_ptxas_log(log, "other"));
  CHECK(!parse_ptxas_log("", "kernel"));
}
