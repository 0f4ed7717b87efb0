#include "experiments/bench/timing.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <vector>

namespace tq::bench {
namespace {

// Enough that the least recently used line is gone whatever the cache's policy.
constexpr double kWorkingSetOfL2 = 4;
// A replay costs a few microseconds beside its launches: 0.3 % of this.
constexpr double kLeastReplayUs = 2000;
// The first replays load the graph and raise the clocks.
constexpr int kWarmUps = 5;
// The 5th and 95th of a hundred are then the sixth from either end: one disturbed replay is not the spread.
constexpr int kReplays = 100;

using Clock = std::chrono::steady_clock;

double elapsed_us(const Event& start, const Event& end) {
  return 1000.0 * static_cast<double>(Event::elapsed_ms(start, end));
}

}  // namespace

Timing summary(std::vector<double> times, int launches, int copies) {
  std::sort(times.begin(), times.end());
  const auto at = [&](double share) {
    return times[static_cast<std::size_t>(std::lround(share * static_cast<double>(times.size() - 1)))] /
           launches;
  };
  return {at(0.5), at(0.05), at(0.95), launches, copies};
}

int Timer::copies(double bytes) const {
  const double target = kWorkingSetOfL2 * static_cast<double>(device_.info().l2_bytes);
  return std::max(1, static_cast<int>(std::ceil(target / bytes)));
}

Timing Timer::throughput(int copies, const Launch& launch) const {
  const auto round = [&] {
    for (int copy = 0; copy < copies; ++copy) launch(copy, stream_);
  };
  round();
  // Once more from a graph: launched by the host one by one, small kernels would take the host's time.
  const Graph one_round = Graph::capture(device_, stream_, round);
  one_round.launch(stream_);
  Event start(device_), end(device_);
  start.record(stream_);
  one_round.launch(stream_);
  end.record(stream_);
  end.synchronize();
  const int rounds = std::max(1, static_cast<int>(std::ceil(kLeastReplayUs / elapsed_us(start, end))));
  const Graph graph = Graph::capture(device_, stream_, [&] {
    for (int i = 0; i < rounds; ++i) round();
  });
  for (int i = 0; i < kWarmUps; ++i) graph.launch(stream_);
  // Queued without waiting: the device never waits for the host.
  std::vector<Event> starts, ends;
  for (int i = 0; i < kReplays; ++i) {
    starts.emplace_back(device_).record(stream_);
    graph.launch(stream_);
    ends.emplace_back(device_).record(stream_);
  }
  stream_.synchronize();
  std::vector<double> times;
  for (std::size_t i = 0; i < starts.size(); ++i) times.push_back(elapsed_us(starts[i], ends[i]));
  return summary(std::move(times), rounds * copies, copies);
}

Timing Timer::latency(int copies, const Launch& launch) const {
  std::vector<Graph> graphs;
  for (int copy = 0; copy < copies; ++copy) {
    launch(copy, stream_);
    graphs.push_back(Graph::capture(device_, stream_, [&] { launch(copy, stream_); }));
  }
  Event start(device_), end(device_);
  std::vector<double> times;
  // All copies at least twice: first launches upload their graph.
  const int warm_ups = std::max(kWarmUps, 2 * copies);
  for (int i = 0; i < warm_ups + kReplays; ++i) {
    stream_.synchronize();
    start.record(stream_);
    graphs[static_cast<std::size_t>(i % copies)].launch(stream_);
    end.record(stream_);
    end.synchronize();
    if (i >= warm_ups) times.push_back(elapsed_us(start, end));
  }
  return summary(std::move(times), 1, copies);
}

double Timer::wall_us(const std::function<void()>& work) const {
  stream_.synchronize();
  const Clock::time_point start = Clock::now();
  work();
  stream_.synchronize();
  return std::chrono::duration<double, std::micro>(Clock::now() - start).count();
}

}  // namespace tq::bench
