#include <fmt/format.h>

#include <memory>
#include <vector>

#include "experiments/bench/cache_tokens.h"
#include "experiments/bench/codecs.h"

// A prompt's tokens into an empty cache: all but the window are quantised. The cache maps its memory
// meanwhile, which the host does, so the time is the host's.
namespace tq::bench {
namespace {

constexpr int kHeads = 8, kDim = 128;
constexpr std::size_t kTokens = 32768;
constexpr int kMeasurements = 20;
constexpr CachePolicy kPolicy{};

Check check_cache(const CacheLayer& layer, const gpu::GpuKvCache& cache, const CacheTokens& tokens) {
  KvCache host({layer}, kPolicy);
  host.prefill(0, 0, tokens.host_k(0), tokens.host_v(0), kTokens);
  CodeDifferences differences;
  add_differences(layer, cache.to_host().store(0, 0), host.store(0, 0), differences);
  return differences.check();
}

}  // namespace

void measure_prefill(Run& run) {
  const CacheTokens tokens(run, kHeads, kDim, kTokens);
  for (const CodecPair& codecs : {mse_pair(4), mse_pair(3), prod_pair()}) {
    const CacheLayer layer = make_layer(codecs, kDim, kHeads, run.seed);
    const auto empty_cache = [&] {
      return std::make_unique<gpu::GpuKvCache>(run.gpu, std::vector{layer}, kPolicy, 1, run.timer.stream());
    };
    const auto prefill = [&](gpu::GpuKvCache& cache) {
      cache.prefill(0, 0, tokens.k(0), tokens.v(0), kTokens);
    };
    const auto first = empty_cache();
    prefill(*first);
    const double vectors = 2.0 * 2.0 * kDim,
                 codes = tq::bytes_per_token(codecs.key, kDim) + tq::bytes_per_token(codecs.value, kDim);
    run.report.measure({fmt::format("prefill {} (1, {}, {})", describe(codecs), kHeads, kTokens),
                        "prefill",
                        {{"codec", describe(codecs)},
                         {"batch", 1},
                         {"kv_heads", kHeads},
                         {"tokens", kTokens},
                         {"d", kDim},
                         {"clock", "host"}},
                        static_cast<double>(kHeads * kTokens) * (vectors + codes)},
                       check_cache(layer, *first, tokens), [&] {
                         std::vector<double> times;
                         for (int i = 0; i < kMeasurements; ++i) {
                           const auto cache = empty_cache();
                           times.push_back(run.timer.wall_us([&] { prefill(*cache); }));
                         }
                         return summary(times, 1, 1);
                       });
  }
}

}  // namespace tq::bench
