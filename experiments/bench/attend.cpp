#include <fmt/format.h>

#include <vector>

#include "experiments/bench/attend_case.h"

// One decode step's attention, rotation of queries and outputs included.
namespace tq::bench {
namespace {

constexpr int kCheckedHeads = 2;

const std::vector<StorageCodec>& attend_codecs() {
  static const std::vector<StorageCodec> list{std::nullopt, mse_pair(4), mse_pair(3), mse_pair(2),
                                              prod_pair()};
  return list;
}

// Steady state: one of many launches.
void measure_throughput(Run& run, const AttendShape& shape, const TokenSource& source) {
  for (const StorageCodec& codec : attend_codecs()) {
    AttendCase attend(run, shape, codec, source);
    run.report.measure({fmt::format("attend {} {}", describe(codec), describe(shape)), "attend",
                        parameters_of(shape, codec), attend.bytes()},
                       attend.check(kCheckedHeads),
                       [&] { return run.timer.throughput(attend.copies(), attend.launch()); });
  }
}

// One token of one sequence: a launch on its own, over what a launch of nothing takes.
void measure_latency(Run& run, const AttendShape& shape, const TokenSource& source) {
  for (const StorageCodec& codec : attend_codecs()) {
    AttendCase attend(run, shape, codec, source);
    const Check check = attend.check(kCheckedHeads);
    for (const bool cold : {true, false}) {
      Json parameters = parameters_of(shape, codec);
      parameters.update({{"alone", true}, {"l2", cold ? "cold" : "warm"}});
      run.report.measure({fmt::format("attend alone, {} L2, {} {}", cold ? "cold" : "warm", describe(codec),
                                      describe(shape)),
                          "attend", parameters, 0, false, run.probes.empty_launch_alone().median_us},
                         check,
                         [&] { return run.timer.latency(cold ? attend.copies() : 1, attend.launch()); });
    }
  }
}

}  // namespace

void measure_attend(Run& run) {
  const Device& device = run.gpu.device();
  const TokenSource source(device, 128, run.random);
  for (const AttendShape& shape :
       {AttendShape{1, 8, 4096}, AttendShape{1, 8, 16384}, AttendShape{1, 8, 131072},
        AttendShape{8, 8, 16384}, AttendShape{8, 8, 32768}, AttendShape{32, 8, 4096},
        AttendShape{1, 32, 16384, 1}, AttendShape{8, 8, 32768, 1}, AttendShape{8, 8, 32768, 4}}) {
    measure_throughput(run, shape, source);
  }
  for (const int d : {64, 256}) {
    measure_throughput(run, {8, 8, 16384, 8, d}, TokenSource(device, d, run.random));
  }
  run.report.measure({"empty launch", "attend"}, std::nullopt, [&] { return run.probes.empty_launch(); });
  run.report.measure({"empty launch alone", "attend"}, std::nullopt,
                     [&] { return run.probes.empty_launch_alone(); });
  for (const int tokens : {1024, 2048, 4096}) measure_latency(run, {1, 8, tokens}, source);
}

}  // namespace tq::bench
