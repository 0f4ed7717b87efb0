#include <fmt/format.h>

#include <algorithm>
#include <vector>

#include "experiments/bench/attend_case.h"

// The longest context of a model's cache that the free memory holds, and what the attention of a decode step
// over it takes: all layers in one launch, as a batch. (One layer alone would be of so many tokens that
// float32 sums over them lose the last bits that the check wants.)
namespace tq::bench {
namespace {

// For queries, outputs, the workspace, and what the check gathers.
constexpr std::size_t kReserve = std::size_t{1} << 30;

// Llama 3.1 8B's.
constexpr int kLayers = 32, kKvHeads = 8;

}  // namespace

void measure_capacity(Run& run) {
  const TokenSource source(run.gpu.device(), 128, run.random);
  for (const StorageCodec& codec :
       std::vector<StorageCodec>{std::nullopt, mse_pair(4), mse_pair(3), mse_pair(2)}) {
    AttendShape shape{kLayers, kKvHeads, 0};
    const std::size_t free = run.gpu.device().free_bytes(),
                      page = std::size_t{gpu::kTileTokens} * kLayers * kKvHeads *
                             static_cast<std::size_t>(bytes_per_token(codec, shape.d));
    shape.tokens = static_cast<int>((free - std::min(free, kReserve)) / page) * gpu::kTileTokens;
    if (shape.tokens == 0) throw SystemError("capacity: {} bytes of device memory are free, too few", free);
    AttendCase attend(run, shape, codec, source);
    // Named without the tokens, which follow from the device.
    run.report.measure(
        {fmt::format("capacity {}, {} layers ({}, all) G 8 d 128", describe(codec), kLayers, kKvHeads),
         "capacity", parameters_of(shape, codec), attend.bytes(), false},
        attend.check(1), [&] { return run.timer.throughput(attend.copies(), attend.launch()); });
    fmt::print("{:<78} {:>10} tokens\n", "", shape.tokens);
  }
}

}  // namespace tq::bench
