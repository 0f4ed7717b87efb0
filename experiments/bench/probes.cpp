#include "experiments/bench/probes.h"

#include <algorithm>
#include <cstdint>
#include <vector>

#include "core/error.h"
#include "jit/memory.h"
#include "kernel_templates/probes.h"
#include "shared/probe_params.h"

namespace tq::bench {
namespace {

// Twenty times the L2 cache, and long enough that beginning and end do not show.
constexpr std::size_t kReadBytes = std::size_t{1} << 30;

// A word of its place's own, so that no word can stand for another.
std::vector<std::uint32_t> words(std::size_t count) {
  std::vector<std::uint32_t> list(count);
  for (std::size_t i = 0; i < count; ++i)
    list[i] = static_cast<std::uint32_t>(i) * 2654435761u;  // 2^32 / phi
  return list;
}

Timing time_reads(GpuContext& gpu, const Timer& timer) {
  const Device& device = gpu.device();
  const CurrentContext current(device);
  const std::vector<std::uint32_t> content = words(kReadBytes / 4);
  const DeviceBuffer data(device, kReadBytes), sum(device, 4);
  upload(data.address(), content, timer.stream());
  fill(sum.address(), 0, 4, timer.stream());
  const Kernel& kernel = gpu.kernels().get(gpu::read_probe_kernel());
  const gpu::ReadProbeParams parameters{data.as<void>(), kReadBytes, sum.as<gpu::u32>()};
  const unsigned grid =
      static_cast<unsigned>(device.info().multiprocessors * kernel.max_active_blocks(gpu::kProbeThreads, 0));
  const Launch read = [&](int, StreamRef stream) {
    launch(kernel, {{grid}, {gpu::kProbeThreads}}, stream, parameters);
  };
  read(0, timer.stream());
  std::vector<std::uint32_t> found(1);
  download(found, sum.address(), timer.stream());
  std::uint32_t expected = 0;
  for (const std::uint32_t word : content) expected += word;
  if (found[0] != expected) throw SystemError("the read probe does not read what lies in device memory");
  return timer.throughput(1, read);
}

nlohmann::ordered_json to_json(const Timing& timing) {
  return {{"median_us", timing.median_us}, {"p5_us", timing.p5_us}, {"p95_us", timing.p95_us}};
}

nlohmann::ordered_json to_json(const Timing& timing, double bytes) {
  nlohmann::ordered_json json{{"bytes", bytes}};
  json.update(to_json(timing));
  json["terabytes_per_second"] = bytes / timing.median_us / 1e6;
  return json;
}

}  // namespace

Probes::Probes(GpuContext& gpu, const Timer& timer)
    : gpu_(gpu), timer_(timer), read_bytes_(kReadBytes), read_(time_reads(gpu, timer)) {
  const Kernel& kernel = gpu.kernels().get(gpu::empty_kernel());
  const Launch nothing = [&](int, StreamRef stream) {
    launch(kernel, {{1}, {1}}, stream, gpu::EmptyParams{});
  };
  empty_ = timer.throughput(1, nothing);
  empty_alone_ = timer.latency(1, nothing);
}

double Probes::copy_us(double bytes) {
  if (const auto known = copies_.find(bytes); known != copies_.end()) return known->second;
  const std::size_t half = std::max<std::size_t>(256, static_cast<std::size_t>(bytes / 2) / 256 * 256);
  const int copies = timer_.copies(bytes);
  const DeviceBuffer from(gpu_.device(), half * static_cast<std::size_t>(copies)),
      to(gpu_.device(), from.bytes());
  const Timing timing = timer_.throughput(copies, [&](int copy, StreamRef stream) {
    const std::size_t at = half * static_cast<std::size_t>(copy);
    copy_on_device(to.address() + at, from.address() + at, half, stream);
  });
  return copies_[bytes] = timing.median_us;
}

nlohmann::ordered_json Probes::json() {
  const double copied = copy_us(read_bytes_);
  return {
      {"read", to_json(read_, read_bytes_)},
      {"copy",
       {{"bytes", read_bytes_}, {"median_us", copied}, {"terabytes_per_second", read_bytes_ / copied / 1e6}}},
      {"empty_launch", to_json(empty_)},
      {"empty_launch_alone", to_json(empty_alone_)}};
}

}  // namespace tq::bench
