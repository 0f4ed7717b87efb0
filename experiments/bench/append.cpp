#include <fmt/format.h>

#include <vector>

#include "experiments/bench/cache_tokens.h"
#include "experiments/bench/codecs.h"

// One token into a cache: into the binary16 window, whose oldest token is quantised. What the host does for
// it counts, so the time is the host's.
namespace tq::bench {
namespace {

constexpr int kHeads = 8, kDim = 128;
constexpr std::size_t kContext = 1024, kSteps = 1024;  // tokens held before; steps before their tokens repeat
constexpr int kMeasurements = 100, kAppends = 16;      // a measurement is long beside the clock and one wait

class AppendCase {
 public:
  AppendCase(Run& run, const CacheLayer& layer, int batch, const CacheTokens& tokens)
      : layer_(layer),
        batch_(batch),
        tokens_(tokens),
        cache_(run.gpu, {layer}, kPolicy, batch, run.timer.stream()) {
    for (int s = 0; s < batch; ++s) cache_.prefill(0, s, tokens.k(start(s)), tokens.v(start(s)), kContext);
  }

  void append() {
    const std::size_t at = step_++ % kSteps;
    cache_.append_batch(0, tokens_.k(at), tokens_.v(at));
  }

  // A random sequence, after more steps than the window is long, against core's cache.
  Check check(Run& run) {
    const std::size_t steps = static_cast<std::size_t>(2 * kPolicy.recent);
    while (step_ < steps) append();
    const int sequence = static_cast<int>(run.random.below(static_cast<std::uint32_t>(batch_)));
    KvCache host({layer_}, kPolicy);
    host.prefill(0, 0, tokens_.host_k(start(sequence)), tokens_.host_v(start(sequence)), kContext);
    for (std::size_t step = 0; step < steps; ++step) {
      const std::size_t at = step + static_cast<std::size_t>(sequence);
      host.append(0, 0, tokens_.host_k(at), tokens_.host_v(at));
    }
    CodeDifferences differences;
    add_differences(layer_, cache_.to_host().store(0, sequence), host.store(0, 0), differences);
    return differences.check();
  }

 private:
  static constexpr CachePolicy kPolicy{};
  // Sequences begin at different tokens.
  static std::size_t start(int sequence) { return kSteps + static_cast<std::size_t>(sequence); }

  const CacheLayer& layer_;
  int batch_;
  const CacheTokens& tokens_;
  gpu::GpuKvCache cache_;
  std::size_t step_ = 0;
};

}  // namespace

void measure_append(Run& run) {
  constexpr int kMostSequences = 32;
  const CacheTokens tokens(run, kHeads, kDim, kSteps + kMostSequences + kContext);
  for (const int batch : {1, kMostSequences}) {
    for (const CodecPair& codecs : {mse_pair(4), mse_pair(3), prod_pair()}) {
      const CacheLayer layer = make_layer(codecs, kDim, kHeads, run.seed);
      AppendCase append(run, layer, batch, tokens);
      const Check check = append.check(run);
      // Far from what memory allows, so the bytes are no share of anything.
      run.report.measure(
          {fmt::format("append {} ({}, {}, 1) after {} tokens", describe(codecs), batch, kHeads, kContext),
           "append",
           {{"codec", describe(codecs)},
            {"batch", batch},
            {"kv_heads", kHeads},
            {"context", kContext},
            {"d", kDim},
            {"clock", "host"}}},
          check, [&] {
            std::vector<double> times;
            for (int i = 0; i <= kMeasurements; ++i) {
              const double us = run.timer.wall_us([&] {
                for (int a = 0; a < kAppends; ++a) append.append();
              });
              if (i > 0) times.push_back(us);
            }
            return summary(times, kAppends, 1);
          });
    }
  }
}

}  // namespace tq::bench
