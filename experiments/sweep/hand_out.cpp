#include "experiments/sweep/hand_out.h"

#include <omp.h>

#include <algorithm>
#include <map>
#include <thread>

#include "core/error.h"
#include "core/message.h"
#include "experiments/processes.h"

namespace tq {
namespace {

// What another process failed with.
class WorkerError : public Error {
 public:
  WorkerError(ExitCode code, const std::string& message) : Error(code, message) {}
};

std::string failed(ExitCode code, const std::string& message) {
  MessageWriter answer;
  answer(false, code, message);
  return answer.bytes();
}

// The answer to a key that measure_at() sent.
std::string answer_to(const std::string& key, const std::map<std::string, const Configuration*>& by_key,
                      Measurer& measurer) {
  try {
    const Measured measured = measurer.measure(*by_key.at(key), [](std::size_t) {});
    MessageWriter answer;
    answer(true, measured.line, measured.timing);
    return answer.bytes();
  } catch (const Error& error) {
    return failed(error.exit_code(), error.what());
  } catch (const std::exception& error) {
    return failed(ExitCode::system, fmt::format("internal error: {}; please report it", error.what()));
  }
}

}  // namespace

std::vector<Worker> share_workers(const ProcessGroup& group, int own_jobs, std::size_t configurations) {
  MessageWriter own;
  own(own_jobs, configurations);
  std::vector<int> jobs;
  std::size_t wanted = 0;
  for (const std::string& bytes : group.all_gather(own.bytes())) {
    MessageReader message(bytes);
    std::size_t asked = 0;
    message(jobs.emplace_back(), asked);
    if (jobs.size() == 1) wanted = asked;
  }
  std::vector<Worker> workers;
  for (int channel = 0; channel < *std::max_element(jobs.begin(), jobs.end()); ++channel) {
    for (int rank = 0; rank < group.size(); ++rank) {
      if (channel < jobs[static_cast<std::size_t>(rank)] && workers.size() < wanted) {
        workers.push_back({rank, channel});
      }
    }
  }
  return workers;
}

void require_same_plan(const ProcessGroup& group, const SweepPlan& plan) {
  const std::vector<std::string> digests = group.all_gather(plan_digest(plan));
  for (std::size_t rank = 1; rank < digests.size(); ++rank) {
    if (digests[rank] != digests[0]) {
      throw UsageError("process {} plans another sweep than process 0: files or environments differ", rank);
    }
  }
}

Measured measure_at(const Worker& worker, const Configuration& configuration) {
  send(worker.rank, worker.channel, configuration.key);
  const std::string bytes = receive(worker.rank, worker.channel);
  MessageReader answer(bytes);
  bool done = false;
  answer(done);
  if (!done) {
    ExitCode code{};
    std::string text;
    answer(code, text);
    throw WorkerError(code, text);
  }
  Measured measured;
  answer(measured.line, measured.timing);
  return measured;
}

void release(const std::vector<Worker>& workers) {
  for (const Worker& worker : workers) {
    if (worker.rank != 0) send(worker.rank, worker.channel, "");
  }
}

void serve(int rank, const std::vector<Worker>& workers, const SweepPlan& plan, Trust trust) {
  std::map<std::string, const Configuration*> by_key;
  for (const Configuration& configuration : plan.configurations) by_key[configuration.key] = &configuration;
  const int cores = omp_get_max_threads();
  const auto own = std::count_if(workers.begin(), workers.end(),
                                 [rank](const Worker& worker) { return worker.rank == rank; });
  Measurer measurer(cores, trust);
  std::vector<std::jthread> threads;
  for (int channel = 0; channel < own; ++channel) {
    threads.emplace_back([&, channel] {
      omp_set_num_threads(std::max(1, cores / static_cast<int>(own)));
      for (std::string key; !(key = receive(0, channel)).empty();) {
        send(0, channel, answer_to(key, by_key, measurer));
      }
    });
  }
}

}  // namespace tq
