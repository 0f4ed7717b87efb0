#pragma once

#include <omp.h>

#include <algorithm>
#include <condition_variable>
#include <cstddef>
#include <exception>
#include <map>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

namespace tq {

// Calls work(i) for i = 0 .. count - 1, `jobs` at a time on threads of their own that share the machine's
// cores, and deliver(i, result) on the calling thread in the order of i, whatever order the work ends in. The
// first exception, in that order, ends it and is thrown here; all before it are delivered.
template <typename Work, typename Deliver>
void run_in_order(std::size_t count, int jobs, const Work& work, const Deliver& deliver) {
  using Result = decltype(work(std::size_t{}));
  struct Outcome {
    Result result{};
    std::exception_ptr failure;
  };
  std::mutex mutex;
  std::condition_variable done;
  std::map<std::size_t, Outcome> outcomes;
  std::size_t next = 0;

  const int threads = std::max(1, omp_get_max_threads() / jobs);
  const auto worker = [&] {
    omp_set_num_threads(threads);
    for (;;) {
      std::size_t index;
      {
        const std::lock_guard lock(mutex);
        if (next >= count) return;
        index = next++;
      }
      Outcome outcome;
      try {
        outcome.result = work(index);
      } catch (...) {
        outcome.failure = std::current_exception();
      }
      const std::lock_guard lock(mutex);
      if (outcome.failure) next = count;
      outcomes.emplace(index, std::move(outcome));
      done.notify_one();
    }
  };

  struct StopOnExit {
    std::mutex& mutex;
    std::size_t& next;
    std::size_t count;
    ~StopOnExit() {
      const std::lock_guard lock(mutex);
      next = count;
    }
  };
  std::vector<std::jthread> workers;  // joined last, after they were told to stop
  const StopOnExit stop{mutex, next, count};
  for (int i = 0; i < jobs; ++i) workers.emplace_back(worker);
  for (std::size_t index = 0; index < count; ++index) {
    std::unique_lock lock(mutex);
    done.wait(lock, [&] { return outcomes.contains(index); });
    Outcome outcome = std::move(outcomes.extract(index).mapped());
    lock.unlock();
    if (outcome.failure) std::rethrow_exception(outcome.failure);
    deliver(index, std::move(outcome.result));
  }
}

}  // namespace tq
