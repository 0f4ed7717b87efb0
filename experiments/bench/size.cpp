#include <fmt/format.h>

#include <vector>

#include "experiments/bench/attend_case.h"

// Attention against one of tokens, batch, and d with bits, everything else fixed.
namespace tq::bench {
namespace {

constexpr int kCheckedHeads = 1;

void measure(Run& run, const AttendShape& shape, const StorageCodec& codec, const TokenSource& source) {
  AttendCase attend(run, shape, codec, source);
  run.report.measure({fmt::format("size {} {}", describe(codec), describe(shape)), "size",
                      parameters_of(shape, codec), attend.bytes()},
                     attend.check(kCheckedHeads),
                     [&] { return run.timer.throughput(attend.copies(), attend.launch()); });
}

}  // namespace

void measure_size(Run& run) {
  const Device& device = run.gpu.device();
  const std::vector<StorageCodec> codecs{std::nullopt, mse_pair(4), mse_pair(3), mse_pair(2)};
  const TokenSource source(device, 128, run.random);
  for (int tokens = 256; tokens <= 1 << 20; tokens *= 4) {
    for (const StorageCodec& codec : codecs) measure(run, {1, 8, tokens}, codec, source);
  }
  for (int batch = 2; batch <= 64; batch *= 2) {  // 1 is among the above
    for (const StorageCodec& codec : codecs) measure(run, {batch, 8, 4096}, codec, source);
  }
  for (const int d : {64, 80, 96, 128, 192, 256}) {
    const TokenSource other(device, d, run.random);
    for (const StorageCodec& codec : codecs) measure(run, {8, 8, 16384, 8, d}, codec, other);
  }
}

}  // namespace tq::bench
