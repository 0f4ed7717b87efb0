#include <doctest/doctest.h>
#include <elf.h>
#include <fmt/format.h>

#include <cstring>
#include <filesystem>
#include <map>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "core/error.h"
#include "jit/compiler.h"
#include "tests/jit/kernels.h"
#include "tests/jit/nvrtc_present.h"
#include "tests/support/temporary_folder.h"

using namespace tq::test;
using tq::Architecture;
using tq::CompiledImage;
using tq::KernelSource;
using tq::SourceTree;

namespace {

const Architecture kHopper{9, 0};

tq::CompileError error_of(const KernelSource& source, const SourceTree& tree = test_tree(),
                          Architecture architecture = kHopper) {
  try {
    tq::compile(source, tree, architecture);
  } catch (const tq::CompileError& error) {
    return error;
  }
  throw std::logic_error("it compiles");
}

bool contains(const std::string& text, const std::string& part) { return text.find(part) != text.npos; }

}  // namespace

TEST_CASE("a kernel compiles for every architecture that is asked for") {
  if (!nvrtc_present()) return;
  std::vector<Architecture> architectures{{8, 0}, {8, 6}, {8, 9}, {9, 0}, {9, 0, true}};
  architectures.push_back(tq::newest_architecture());
  for (const Architecture& architecture : architectures) {
    CAPTURE(tq::to_string(architecture));
    const CompiledImage image = tq::compile(scale_kernel(3), test_tree(), architecture);
    REQUIRE(image.cubin.size() > sizeof(Elf64_Ehdr));
    CHECK(std::memcmp(image.cubin.data(), ELFMAG, SELFMAG) == 0);
    CHECK(contains(image.lowered_name, "scale"));
    CHECK(contains(image.lowered_name, "3"));
    CHECK(image.usage.registers > 0);
    CHECK(image.usage.registers < 64);
    CHECK(image.usage.spill_store_bytes == 0);
    CHECK(image.usage.stack_frame_bytes == 0);
    CHECK(image.usage.static_shared_bytes == 0);
  }
}

TEST_CASE("stack, spills and shared memory are reported") {
  if (!nvrtc_present()) return;
  const CompiledImage image = tq::compile(local_array_kernel(), test_tree(), kHopper);
  CHECK(image.usage.stack_frame_bytes >= 400);
  CHECK(image.usage.stack_frame_bytes < 800);
  CHECK(image.usage.static_shared_bytes >= 512);
  CHECK(image.usage.static_shared_bytes < 2048);

  KernelSource starved{.label = "starved",
                       .text = R"(#include "shared/scale_params.h"
__global__ void starved(ScaleParams params) {
  float kept[64];
#pragma unroll
  for (int i = 0; i < 64; ++i) kept[i] = params.values[i * 32 + threadIdx.x];
  __syncthreads();
#pragma unroll
  for (int i = 0; i < 64; ++i) params.values[i * 32 + threadIdx.x] = kept[63 - i] * kept[i];
}
)",
                       .name_expression = "starved",
                       .options = {"--maxrregcount=24"}};
  const CompiledImage spilled = tq::compile(starved, test_tree(), kHopper);
  CHECK(spilled.usage.registers <= 24);
  CHECK(spilled.usage.spill_store_bytes > 0);
  CHECK(spilled.usage.spill_load_bytes > 0);
  starved.options.clear();
  CHECK(tq::compile(starved, test_tree(), kHopper).usage.spill_store_bytes == 0);
}

TEST_CASE("an option may hold blanks") {
  if (!nvrtc_present()) return;
  KernelSource source = scale_kernel();
  source.text += "static_assert(TOTAL == 3);\n";
  source.options = {"--define-macro=TOTAL=1 + 2"};
  CHECK(!tq::compile(source, test_tree(), kHopper).cubin.empty());
}

TEST_CASE("a compile error is the whole bug report") {
  if (!nvrtc_present()) return;
  KernelSource source = scale_kernel();
  source.label = "scale d128 broken";
  source.text += "__global__ void broken() { undeclared = 1; }\n";
  source.options = {"--define-macro=WIDTH=7"};
  const tq::CompileError error = error_of(source);
  const std::string line = error.what(), report = error.report();
  CHECK(!contains(line, "\n"));
  CHECK(contains(line, "scale d128 broken"));
  CHECK(contains(line, "sm_90"));
  CHECK(contains(line, "undeclared"));
  CHECK(error.exit_code() == tq::ExitCode::system);
  CHECK(contains(error.log(), "undeclared"));
  CHECK(contains(report, line));
  CHECK(contains(report, error.log()));
  CHECK(contains(report, "--gpu-architecture=sm_90"));
  CHECK(contains(report, "--define-macro=WIDTH=7"));
  CHECK(contains(report, "scale<1>"));
  CHECK(contains(report, "    1 | #include \"device/scale.cuh\"\n    2 | __global__ void broken()"));
}

TEST_CASE("an error within an included file names that file") {
  if (!nvrtc_present()) return;
  const SourceTree tree(std::map<std::string, std::string>{{"device/bad.cuh", "int x = ;\n"}});
  const KernelSource source{"bad", "#include \"device/bad.cuh\"\n__global__ void k(int) {}\n", "k", {}};
  CHECK(contains(error_of(source, tree).what(), "device/bad.cuh(1)"));
}

TEST_CASE("nothing is included that is not in the tree, not even from the current folder") {
  if (!nvrtc_present()) return;
  const TemporaryFolder folder;
  write_text(folder / "outside.h", "\n");
  const std::filesystem::path before = std::filesystem::current_path();
  std::filesystem::current_path(folder / "");
  const KernelSource source{"outside", "#include \"outside.h\"\n__global__ void k(int) {}\n", "k", {}};
  const std::string message = error_of(source).what();
  std::filesystem::current_path(before);
  CHECK(contains(message, "could not open source file"));
}

TEST_CASE("unknown options, names and architectures are errors") {
  if (!nvrtc_present()) return;
  KernelSource source = scale_kernel();
  source.options = {"--no-such-option"};
  CHECK(contains(error_of(source).what(), "no-such-option"));
  source = scale_kernel();
  source.name_expression = "no_such_kernel";
  CHECK(contains(error_of(source).what(), "no_such_kernel"));
  CHECK(contains(error_of(scale_kernel(), test_tree(), {2, 0}).what(), "sm_20"));
}

TEST_CASE("an empty image is an error, though NVRTC calls it a success") {
  if (!nvrtc_present()) return;
  KernelSource source = scale_kernel();
  source.options = {"--dlto"};  // asks for an intermediate language only
  CHECK(contains(error_of(source).what(), "sm_90"));
}

TEST_CASE("many threads compile at once") {
  if (!nvrtc_present()) return;
  std::vector<CompiledImage> images(8);
  std::vector<std::jthread> threads;
  for (std::size_t i = 0; i < images.size(); ++i) {
    threads.emplace_back(
        [&images, i] { images[i] = tq::compile(scale_kernel(static_cast<int>(i)), test_tree(), kHopper); });
  }
  threads.clear();
  for (std::size_t i = 0; i < images.size(); ++i) {
    const CompiledImage alone = tq::compile(scale_kernel(static_cast<int>(i)), test_tree(), kHopper);
    CHECK(images[i].lowered_name == alone.lowered_name);
    CHECK(images[i].usage == alone.usage);
    CHECK(images[i].cubin.size() == alone.cubin.size());
  }
}
