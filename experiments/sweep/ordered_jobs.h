#pragma once

#include <condition_variable>
#include <cstddef>
#include <exception>
#include <map>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

namespace tq {

// Calls work(i, worker) for i = 0 .. count - 1, each on the next free one of `workers` threads of their own,
// and deliver(i, result) on the calling thread in the order of i, whatever order the work ends in. The first
// exception, in that order, ends it and is thrown here; all before it are delivered.
template <typename Work, typename Deliver>
void run_in_order(std::size_t count, std::size_t workers, const Work& work, const Deliver& deliver) {
  using Result = decltype(work(std::size_t{}, std::size_t{}));
  struct Outcome {
    Result result{};
    std::exception_ptr failure;
  };
  std::mutex mutex;
  std::condition_variable done;
  std::map<std::size_t, Outcome> outcomes;
  std::size_t next = 0;

  const auto run = [&](std::size_t worker) {
    for (;;) {
      std::size_t index;
      {
        const std::lock_guard lock(mutex);
        if (next >= count) return;
        index = next++;
      }
      Outcome outcome;
      try {
        outcome.result = work(index, worker);
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
  std::vector<std::jthread> threads;  // joined last, after they were told to stop
  const StopOnExit stop{mutex, next, count};
  for (std::size_t i = 0; i < workers; ++i) threads.emplace_back(run, i);
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
