#include <fmt/format.h>
#include <unistd.h>

#include <filesystem>
#include <vector>

#include "experiments/bench/random_vectors.h"
#include "experiments/bench/run.h"
#include "experiments/bench/token_storage.h"

// The first attention of a process, from the call to its end: what compiling or loading a kernel costs.
namespace tq::bench {
namespace {

constexpr int kCompilations = 5, kLoads = 20;
constexpr StorageShape kShape{1, 8, 4096, 128};
constexpr int kGroup = 8;

// A folder of compiled kernels that nothing else uses.
class EmptyCache {
 public:
  EmptyCache()
      : folder_(std::filesystem::temp_directory_path() / fmt::format("tq-bench-kernels-{}", getpid())) {}
  ~EmptyCache() {
    std::error_code ignored;
    std::filesystem::remove_all(folder_, ignored);
  }
  EmptyCache(const EmptyCache&) = delete;
  EmptyCache& operator=(const EmptyCache&) = delete;
  std::string path() const { return folder_.string(); }
  void clear() { CubinCache(path()).clear(); }

 private:
  std::filesystem::path folder_;
};

}  // namespace

void measure_first_use(Run& run) {
  const Device& device = run.gpu.device();
  const TokenSource source(device, kShape.d, run.random);
  const std::size_t elements = static_cast<std::size_t>(kShape.kv_heads * kGroup * kShape.d);
  const DeviceBuffer q = random_vectors(device, elements, gpu::Element::f16, run.random),
                     out(device, q.bytes());
  EmptyCache cache;
  const auto first_use = [&] {
    GpuContext fresh({.ordinal = device.info().ordinal,
                      .cache_folder = cache.path(),
                      .tuning_file = {},
                      .sources_folder = {}});
    // Compiles what encodes; attention has a kernel of its own.
    QuantisedTokens tokens(fresh, kShape, mse_pair(4), run.seed, source, run.timer.stream());
    gpu::GpuAttention::Call call;
    call.queries = q.as<void>();
    call.out = out.as<void>();
    call.group = kGroup;
    call.kv_heads = kShape.kv_heads;
    return run.timer.wall_us([&] { tokens.attend(call, 0, run.timer.stream()); });
  };
  std::vector<double> compiled, loaded;
  for (int i = 0; i < kCompilations; ++i) {
    cache.clear();
    compiled.push_back(first_use());
  }
  for (int i = 0; i < kLoads; ++i) loaded.push_back(first_use());
  run.report.measure({"first use, compiled", "first"}, std::nullopt, [&] { return summary(compiled, 1, 1); });
  run.report.measure({"first use, from the disk cache", "first"}, std::nullopt,
                     [&] { return summary(loaded, 1, 1); });
}

}  // namespace tq::bench
