// What of jit needs a GPU. Exits with 77, "skipped", where there is none.
#define DOCTEST_CONFIG_IMPLEMENT
#include <doctest/doctest.h>
#include <fmt/format.h>

#include <array>
#include <cstddef>
#include <numeric>
#include <optional>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "core/error.h"
#include "jit/cubin_cache.h"
#include "jit/cuda_error.h"
#include "jit/device.h"
#include "jit/kernel.h"
#include "jit/kernel_loader.h"
#include "jit/memory.h"
#include "jit/stream.h"
#include "tests/jit/kernels.h"
#include "tests/support/temporary_folder.h"

using namespace tq::test;
using tq::CurrentContext;
using tq::Device;
using tq::DeviceBuffer;
using tq::Kernel;
using tq::KernelLoader;
using tq::KernelSource;
using tq::LaunchShape;
using tq::StreamRef;

namespace {

constexpr int kExitSkipped = 77;
constexpr int kCount = 1000;  // no multiple of a block
constexpr LaunchShape kScaleShape{.grid = {8}, .block = {128}};

std::vector<float> ramp() {
  std::vector<float> values(kCount);
  std::iota(values.begin(), values.end(), 0.0F);
  return values;
}

// Writes the last byte of its dynamic shared memory and reads it back; takes a ScaleParams.
KernelSource shared_memory_kernel() {
  return {.label = "shared_memory",
          .text = R"(#include "shared/scale_params.h"
__global__ void shared_memory(ScaleParams params) {
  extern __shared__ unsigned char bytes[];
  bytes[params.count - 1] = 42;
  __syncthreads();
  params.values[0] = bytes[params.count - 1];
}
)",
          .name_expression = "shared_memory",
          .options = {}};
}

template <typename Error, typename Call>
std::string message_of(Call call) {
  try {
    call();
  } catch (const Error& error) {
    return error.what();
  }
  return "nothing was thrown";
}

bool contains(const std::string& text, const std::string& part) { return text.find(part) != text.npos; }

// What most tests need: one kernel that works, some memory, the context current.
struct Bench {
  Device device = Device::open(0);
  CurrentContext current{device};
  KernelLoader loader{device, test_tree()};
  DeviceBuffer values{device, kCount * sizeof(float)};

  ScaleParams params(float factor = 3) const { return {values.as<float>(), factor, kCount}; }
  bool works() {
    const std::vector<float> before = ramp();
    tq::upload(values.address(), before);
    tq::launch(loader.get(scale_kernel()), kScaleShape, {}, params());
    std::vector<float> after(kCount);
    tq::download(after, values.address());
    for (std::size_t i = 0; i < after.size(); ++i) {
      if (after[i] != 3 * before[i]) return false;
    }
    return true;
  }
};

}  // namespace

TEST_CASE("the device describes itself") {
  const Device device = Device::open(0);
  const tq::DeviceInfo& info = device.info();
  CHECK(!info.name.empty());
  CHECK(info.architecture.major >= 7);
  CHECK(info.multiprocessors > 0);
  CHECK(info.shared_bytes_per_block >= 48 << 10);
  CHECK(info.l2_bytes > 0);
  CHECK(info.total_bytes > 0);
  CHECK(device.free_bytes() <= info.total_bytes);
  CHECK(info.max_grid.x > 65535);
  CHECK(info.driver_version >= 12000);
  MESSAGE(info.name, ", ", tq::to_string(info.architecture), ", driver for CUDA ", info.driver_version);
  CHECK_THROWS_AS(Device::open(Device::count()), tq::SystemError);
  CHECK_THROWS_AS(Device::open(-1), tq::SystemError);
}

TEST_CASE("the current context is put back") {
  const Device device = Device::open(0);
  tq::cuda::ContextHandle before = nullptr, within = nullptr, after = nullptr;
  tq::cuda::call(tq::cuda::driver().ctx_get_current, &before);
  {
    const CurrentContext current(device), again(device);
    tq::cuda::call(tq::cuda::driver().ctx_get_current, &within);
  }
  tq::cuda::call(tq::cuda::driver().ctx_get_current, &after);
  CHECK(within == device.context()->handle());
  CHECK(after == before);
  // The same context for everybody in the process.
  CHECK(Device::open(0).context()->handle() == device.context()->handle());
}

TEST_CASE("what was made with a device outlives it") {
  std::optional<Device> device = Device::open(0);
  const tq::Stream stream(*device);
  const DeviceBuffer buffer(*device, 1000);
  device.reset();
  stream.synchronize();
}

TEST_CASE("a kernel runs, in the default stream and in one of our own") {
  Bench bench;
  CHECK(bench.works());
  const tq::Stream stream(bench.device);
  const std::vector<float> before = ramp();
  tq::upload(bench.values.address(), before, stream);
  tq::launch(bench.loader.get(scale_kernel(2)), kScaleShape, stream, bench.params());
  std::vector<float> after(kCount);
  tq::download(after, bench.values.address(), stream);
  for (std::size_t i = 0; i < after.size(); ++i) CHECK(after[i] == 9 * before[i]);
}

TEST_CASE("fill and copy move bytes") {
  Bench bench;
  const DeviceBuffer copy(bench.device, bench.values.bytes());
  tq::fill(bench.values.address(), 0xab, bench.values.bytes());
  tq::fill(copy.address(), 0, copy.bytes());
  tq::copy_on_device(copy.address(), bench.values.address(), copy.bytes() - 1);
  std::vector<unsigned char> bytes(copy.bytes());
  tq::download(bytes, copy.address());
  for (std::size_t i = 0; i + 1 < bytes.size(); ++i) CHECK(bytes[i] == 0xab);
  CHECK(bytes.back() == 0);
  // Nothing is nothing.
  tq::fill(0, 1, 0);
  tq::copy_on_device(0, 0, 0);
  tq::upload(0, std::vector<float>());
  CHECK(DeviceBuffer(bench.device, 0).address() == 0);
}

TEST_CASE("a grid without blocks launches nothing") {
  Bench bench;
  tq::launch(bench.loader.get(scale_kernel()), {.grid = {0}, .block = {128}}, {}, bench.params());
  bench.device.synchronize();
  CHECK(bench.works());
}

TEST_CASE("a launch that cannot be names the kernel and its shape") {
  Bench bench;
  const Kernel& kernel = bench.loader.get(scale_kernel(5));
  const std::string block = message_of<tq::CudaError>([&] {
    tq::launch(kernel, {.grid = {7, 2}, .block = {4096}}, {}, bench.params());
  });
  CHECK(contains(block, "cuLaunchKernel"));
  CHECK(contains(block, "CUDA_ERROR_INVALID_VALUE"));
  CHECK(contains(block, "scale x5"));
  CHECK(contains(block, "7x2x1"));
  CHECK(contains(block, "4096x1x1"));
  const std::string shared = message_of<tq::CudaError>([&] {
    tq::launch(kernel, {.grid = {1}, .block = {32}, .shared_bytes = 123456789}, {}, bench.params());
  });
  CHECK(contains(shared, "scale x5"));
  CHECK(contains(shared, "123456789"));
  CHECK(bench.works());
}

TEST_CASE("a parameter of the wrong size is refused where the driver can tell") {
  Bench bench;
  const Kernel& kernel = bench.loader.get(scale_kernel());
  if (!kernel.parameter_bytes()) {
    MESSAGE("skipped: this driver cannot tell");
    return;
  }
  CHECK(*kernel.parameter_bytes() == sizeof(ScaleParams));
  const std::string message =
      message_of<std::logic_error>([&] { tq::launch(kernel, kScaleShape, {}, std::array<char, 24>{}); });
  CHECK(contains(message, "scale x1"));
  CHECK(contains(message, "24"));
  KernelSource none{"none", "__global__ void none() {}\n", "none", {}};
  CHECK(contains(message_of<std::logic_error>([&] { bench.loader.get(none); }), "kernel none"));
  CHECK(bench.works());
}

TEST_CASE("a kernel has the shared memory that the device offers with opt-in") {
  Bench bench;
  const Kernel& kernel = bench.loader.get(shared_memory_kernel());
  const std::size_t most = bench.device.info().shared_bytes_per_block;
  for (const std::size_t bytes : {std::size_t{1}, std::size_t{48 << 10}, (std::size_t{48} << 10) + 1, most}) {
    CAPTURE(bytes);
    ScaleParams params = bench.params();
    params.count = static_cast<int>(bytes);
    tq::fill(bench.values.address(), 0, sizeof(float));
    tq::launch(kernel, {.grid = {1}, .block = {32}, .shared_bytes = static_cast<unsigned>(bytes)}, {},
               params);
    std::array<float, 1> seen{};
    tq::download(seen, bench.values.address());
    CHECK(seen[0] == 42);
  }
  CHECK(kernel.max_active_blocks(128, static_cast<unsigned>(most)) == 1);
  CHECK(kernel.max_active_blocks(128, 0) > 1);
}

TEST_CASE("running out of memory says how much was asked for and leaves the process usable") {
  Bench bench;
  const std::size_t too_much = bench.device.info().total_bytes * 2;
  const auto check = [&](const std::string& message) {
    CHECK(contains(message, "out of GPU memory"));
    CHECK(contains(message, "free"));
    CHECK(bench.works());
  };
  const std::string fixed =
      message_of<tq::SystemError>([&] { const DeviceBuffer buffer(bench.device, too_much); });
  CHECK(contains(fixed, std::to_string(too_much)));
  check(fixed);
  // In pieces, until there is no more.
  std::vector<DeviceBuffer> pieces;
  const std::size_t piece = bench.device.info().total_bytes / 8;
  check(message_of<tq::SystemError>([&] {
    for (int i = 0; i < 9; ++i) pieces.emplace_back(bench.device, piece);
  }));
  pieces.clear();
  const DeviceBuffer again(bench.device, piece);
  CHECK(again.address() != 0);
}

TEST_CASE("a growing buffer keeps its address and what is in it") {
  Bench bench;
  tq::GrowableBuffer buffer(bench.device, std::size_t{64} << 20);
  CHECK(buffer.size() == 0);
  CHECK(buffer.max_bytes() >= std::size_t{64} << 20);
  const tq::DeviceAddress address = buffer.address();
  const std::size_t step = buffer.granularity();
  buffer.grow(1);
  CHECK(buffer.size() == step);
  std::size_t filled = 0;
  for (unsigned char round = 1; round <= 5; ++round) {
    buffer.grow(filled + round * step);
    CHECK(buffer.address() == address);
    tq::fill(address + filled, round, buffer.size() - filled);
    filled = buffer.size();
  }
  CHECK(filled == 15 * step);
  buffer.grow(1);  // never shrinks
  CHECK(buffer.size() == filled);
  std::vector<unsigned char> bytes(filled);
  const auto check_content = [&](const tq::GrowableBuffer& checked) {
    tq::download(bytes, checked.address());
    std::size_t at = 0;
    for (unsigned char round = 1; round <= 5; ++round) {
      for (std::size_t i = 0; i < round * step; ++i, ++at) {
        if (bytes[at] != round) FAIL("byte ", at, " is ", int{bytes[at]});
      }
    }
  };
  check_content(buffer);
  tq::GrowableBuffer moved = std::move(buffer);
  check_content(moved);

  CHECK_THROWS_AS(moved.grow(moved.max_bytes() + 1), tq::SystemError);
  check_content(moved);
  tq::GrowableBuffer endless(bench.device, bench.device.info().total_bytes * 2);
  endless.grow(1);
  CHECK(
      contains(message_of<tq::SystemError>([&] { endless.grow(endless.max_bytes()); }), "out of GPU memory"));
  CHECK(endless.size() == endless.granularity());
  check_content(moved);
  CHECK(bench.works());
}

TEST_CASE("a graph replays what was recorded") {
  Bench bench;
  const tq::Stream stream(bench.device);
  const Kernel& kernel = bench.loader.get(scale_kernel());
  tq::upload(bench.values.address(), ramp(), stream);
  const tq::Graph graph = tq::Graph::capture(bench.device, stream, [&] {
    tq::launch(kernel, kScaleShape, stream, bench.params(2));
    tq::launch(kernel, kScaleShape, stream, bench.params(2));
  });
  std::vector<float> values(kCount);
  tq::download(values, bench.values.address(), stream);
  CHECK(values == ramp());  // recording ran nothing
  tq::Event start(bench.device), end(bench.device);
  start.record(stream);
  for (int i = 0; i < 3; ++i) graph.launch(stream);
  end.record(stream);
  end.synchronize();
  CHECK(tq::Event::elapsed_ms(start, end) > 0);
  tq::download(values, bench.values.address(), stream);
  for (int i = 0; i < kCount; ++i)
    CHECK(values[static_cast<std::size_t>(i)] == 64.0F * static_cast<float>(i));
}

TEST_CASE("what is thrown while recording goes on, and the stream is usable") {
  Bench bench;
  const tq::Stream stream(bench.device);
  CHECK_THROWS_AS(
      tq::Graph::capture(bench.device, stream, [] { throw tq::UsageError("thrown while recording"); }),
      tq::UsageError);
  tq::fill(bench.values.address(), 0, bench.values.bytes(), stream);
  stream.synchronize();
  CHECK(bench.works());
}

TEST_CASE("an event makes another stream wait") {
  Bench bench;
  const tq::Stream first(bench.device), second(bench.device);
  tq::Event done(bench.device);
  tq::fill(bench.values.address(), 7, bench.values.bytes(), first);
  done.record(first);
  done.make_wait(second);
  std::vector<unsigned char> bytes(bench.values.bytes());
  tq::download(bytes, bench.values.address(), second);
  for (const unsigned char byte : bytes) CHECK(byte == 7);
}

TEST_CASE("the loader compiles once, then takes kernels from memory, then from the disk") {
  const Device device = Device::open(0);
  const TemporaryFolder folder;
  {
    KernelLoader loader(device, test_tree(), tq::CubinCache(folder / "cache"));
    CHECK(loader.architecture().major == device.info().architecture.major);
    const Kernel& kernel = loader.get(scale_kernel());
    CHECK(&loader.get(scale_kernel()) == &kernel);
    CHECK(&loader.get(scale_kernel(2)) != &kernel);
    CHECK(kernel.label() == "scale x1");
    CHECK(kernel.usage().registers > 0);
    CHECK(loader.stats().compiled == 2);
    CHECK(loader.stats().from_memory == 1);
    CHECK(loader.stats().from_disk == 0);
    MESSAGE("compiled and loaded 2 in ", loader.stats().seconds, " s");
  }
  KernelLoader loader(device, test_tree(), tq::CubinCache(folder / "cache"));
  loader.get(scale_kernel());
  CHECK(loader.stats().compiled == 0);
  CHECK(loader.stats().from_disk == 1);
  CHECK(loader.cache_problem().empty());
  MESSAGE("loaded 1 from the disk cache in ", loader.stats().seconds, " s");
}

TEST_CASE("many threads ask the loader at once") {
  const Device device = Device::open(0);
  KernelLoader loader(device, test_tree());
  constexpr int kThreads = 16, kKernels = 4;
  std::array<std::array<const Kernel*, kKernels>, kThreads> seen{};
  {
    std::vector<std::jthread> threads;
    for (auto& mine : seen) {
      threads.emplace_back([&loader, &mine] {
        for (int i = 0; i < kKernels; ++i) mine[static_cast<std::size_t>(i)] = &loader.get(scale_kernel(i));
      });
    }
  }
  for (const auto& mine : seen) CHECK(mine == seen[0]);
  CHECK(loader.stats().compiled == kKernels);
  CHECK(loader.stats().from_memory == kThreads * kKernels - kKernels);
}

TEST_CASE("an image that the device does not take is an error with the kernel's name") {
  Bench bench;
  tq::CompiledImage rubbish;
  rubbish.cubin.assign(4096, std::byte{'x'});
  rubbish.lowered_name = "rubbish";
  const std::string message =
      message_of<tq::CudaError>([&] { const Kernel kernel(bench.device, "rubbish d128", rubbish); });
  CHECK(contains(message, "cuModuleLoadData"));
  CHECK(contains(message, "rubbish d128"));
  CHECK(bench.works());
}

int main(int argc, char** argv) {
  std::string reason;
  try {
    if (Device::count() == 0) reason = "the driver finds none";
  } catch (const tq::SystemError& error) {
    reason = error.what();
  }
  if (!reason.empty()) {
    fmt::print("skipped: no GPU ({})\n", reason);
    return kExitSkipped;
  }
  return doctest::Context(argc, argv).run();
}
