#include <fmt/format.h>

#include "experiments/bench/score_case.h"

// Scores of all tokens straight from key tiles.
namespace tq::bench {
namespace {

constexpr int kCheckedHeads = 2;

}  // namespace

void measure_score(Run& run) {
  const TokenSource source(run.gpu.device(), 128, run.random);
  for (const AttendShape& shape : {AttendShape{8, 8, 32768}, AttendShape{1, 8, 131072}}) {
    for (const int bits : {4, 3, 2}) {
      const CodecPair codecs = mse_pair(bits);
      const std::string codec = tq::describe(codecs.key);
      Json parameters = parameters_of(shape, codecs);
      parameters["codec"] = codec;  // values are not read
      ScoreCase score(run, shape, codecs, source);
      run.report.measure(
          {fmt::format("score {} {}", codec, describe(shape)), "score", parameters, score.bytes()},
          score.check(kCheckedHeads), [&] { return run.timer.throughput(score.copies(), score.launch()); });
    }
  }
}

}  // namespace tq::bench
