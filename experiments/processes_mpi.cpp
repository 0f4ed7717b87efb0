#include <fmt/format.h>
#include <mpi.h>
#include <omp.h>
#include <sched.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <climits>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <mutex>
#include <optional>
#include <stop_token>
#include <thread>
#include <vector>

#include "datasets/atomic_file.h"
#include "experiments/processes.h"

namespace tq {
namespace {

using namespace std::chrono_literals;

// MPI's own waits spin, which takes the cores of those that are waited for.
void wait(MPI_Request request, MPI_Status* status = MPI_STATUS_IGNORE) {
  auto pause = 20us;
  for (int done = 0;;) {
    MPI_Test(&request, &done, status);
    if (done != 0) return;
    std::this_thread::sleep_for(pause);
    pause = std::min(pause * 2, std::chrono::microseconds(1000));
  }
}

int count_of(std::size_t bytes) {
  if (bytes > INT_MAX) throw SystemError("{} bytes in one message; MPI sends at most {}", bytes, INT_MAX);
  return static_cast<int>(bytes);
}

class MpiGroup final : public ProcessGroup {
 public:
  // Owns the communicator.
  explicit MpiGroup(MPI_Comm communicator) : communicator_(communicator) {
    MPI_Comm_rank(communicator_, &rank_);
    MPI_Comm_size(communicator_, &size_);
  }
  ~MpiGroup() override {
    // Freeing is collective: one that fails must not wait for those that do not know it yet.
    if (std::uncaught_exceptions() == 0) MPI_Comm_free(&communicator_);
  }

  int rank() const override { return rank_; }
  int size() const override { return size_; }

  std::vector<std::string> all_gather(const std::string& own) const override {
    const int own_bytes = count_of(own.size());
    std::vector<int> bytes(static_cast<std::size_t>(size_)), begins(bytes.size());
    MPI_Request request;
    MPI_Iallgather(&own_bytes, 1, MPI_INT, bytes.data(), 1, MPI_INT, communicator_, &request);
    wait(request);
    std::size_t total = 0;
    for (std::size_t i = 0; i < bytes.size(); ++i) {
      begins[i] = count_of(total);
      total += static_cast<std::size_t>(bytes[i]);
    }
    std::string all(static_cast<std::size_t>(count_of(total)), '\0');
    MPI_Iallgatherv(own.data(), own_bytes, MPI_BYTE, all.data(), bytes.data(), begins.data(), MPI_BYTE,
                    communicator_, &request);
    wait(request);
    std::vector<std::string> messages;
    for (std::size_t i = 0; i < bytes.size(); ++i) {
      messages.push_back(all.substr(static_cast<std::size_t>(begins[i]), static_cast<std::size_t>(bytes[i])));
    }
    return messages;
  }

  std::unique_ptr<const ProcessGroup> split(int colour) const override {
    MPI_Comm part;
    MPI_Comm_split(communicator_, colour, rank_, &part);
    return std::make_unique<MpiGroup>(part);
  }

  // Returns when all have called it.
  void meet() const {
    MPI_Request request;
    MPI_Ibarrier(communicator_, &request);
    wait(request);
  }

 private:
  MPI_Comm communicator_;
  int rank_ = 0, size_ = 1;
};

MPI_Comm duplicate_of_world() {
  MPI_Comm copy;
  MPI_Comm_dup(MPI_COMM_WORLD, &copy);
  return copy;
}

// The one who prints is the first process; another that fails tells it. It may be busy, so a thread listens.
class FailureDesk {
 public:
  explicit FailureDesk(const ProcessGroup& world) : rank_(world.rank()), communicator_(duplicate_of_world()) {
    if (rank_ != 0 || world.size() == 1) return;
    listener_ = std::jthread([this](const std::stop_token& stop) { listen(stop); });
  }
  ~FailureDesk() {
    if (listener_.joinable()) {
      listener_.request_stop();
      listener_.join();
    }
    MPI_Comm_free(&communicator_);
  }

  [[noreturn]] void fail(ExitCode code, const std::string& message) {
    if (rank_ != 0) {
      MPI_Request request;
      MPI_Isend(message.data(), count_of(message.size()), MPI_BYTE, 0, static_cast<int>(code), communicator_,
                &request);
      // Until the first process has ended this one, or there is no such process any more.
      const auto end = std::chrono::steady_clock::now() + 30s;
      for (int sent = 0; std::chrono::steady_clock::now() < end; std::this_thread::sleep_for(10ms)) {
        if (sent == 0) MPI_Test(&request, &sent, MPI_STATUS_IGNORE);
      }
    }
    print_and_end(code, message);
  }

 private:
  void listen(const std::stop_token& stop) {
    while (!stop.stop_requested()) {
      int found = 0;
      MPI_Status status;
      MPI_Iprobe(MPI_ANY_SOURCE, MPI_ANY_TAG, communicator_, &found, &status);
      if (found == 0) {
        std::this_thread::sleep_for(20ms);
        continue;
      }
      int bytes = 0;
      MPI_Get_count(&status, MPI_BYTE, &bytes);
      std::string message(static_cast<std::size_t>(bytes), '\0');
      MPI_Recv(message.data(), bytes, MPI_BYTE, status.MPI_SOURCE, status.MPI_TAG, communicator_,
               MPI_STATUS_IGNORE);
      print_and_end(static_cast<ExitCode>(status.MPI_TAG), message);
    }
  }

  [[noreturn]] void print_and_end(ExitCode code, const std::string& message) {
    mutex_.lock();  // for good: who comes second waits until it is ended
    fmt::print(stderr, "tq: {}\n", message);
    std::fflush(nullptr);
    remove_temporaries_on_signal();
    MPI_Abort(MPI_COMM_WORLD, static_cast<int>(code));
    std::_Exit(static_cast<int>(code));
  }

  int rank_;
  MPI_Comm communicator_;
  std::mutex mutex_;
  std::jthread listener_;
};

// What there is from join_processes() to leave_processes() where something launched several processes, or
// one that could be one of several.
struct World {
  MpiGroup group{duplicate_of_world()};
  FailureDesk failures{group};
  int local_rank = 0;
};
std::optional<World> world;

// MPI starts daemons and prints where it is initialised without a launcher, so it is not.
bool launched() {
  // Open MPI's mpirun; PMI 1 and 2 and PMIx, by which srun starts processes.
  constexpr std::array kVariables{"OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "PMI_RANK", "PMIX_RANK"};
  return std::any_of(kVariables.begin(), kVariables.end(),
                     [](const char* name) { return std::getenv(name) != nullptr; });
}

// Every core counts as many times less as there are processes of this machine that may run on it.
int share_of_cores(const ProcessGroup& machine) {
  cpu_set_t own;
  sched_getaffinity(0, sizeof(own), &own);
  const std::vector<std::string> sets =
      machine.all_gather(std::string(reinterpret_cast<const char*>(&own), sizeof(own)));
  double cores = 0;
  for (int core = 0; core < CPU_SETSIZE; ++core) {
    if (!CPU_ISSET(core, &own)) continue;
    cores += 1 / static_cast<double>(std::count_if(sets.begin(), sets.end(), [core](const std::string& set) {
               return CPU_ISSET(core, reinterpret_cast<const cpu_set_t*>(set.data()));
             }));
  }
  return std::max(1, static_cast<int>(cores + 1e-6));
}

}  // namespace

void join_processes() {
  if (!launched()) return;
  int provided = 0;
  MPI_Init_thread(nullptr, nullptr, MPI_THREAD_MULTIPLE, &provided);
  if (provided < MPI_THREAD_MULTIPLE) throw SystemError("this MPI does not serve several threads");
  world.emplace();
  MPI_Comm same_machine;
  MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, world->group.rank(), MPI_INFO_NULL,
                      &same_machine);
  const MpiGroup machine(same_machine);
  world->local_rank = machine.rank();
  const int cores = share_of_cores(machine);
  if (std::getenv("OMP_NUM_THREADS") == nullptr) omp_set_num_threads(cores);
  if (world->group.rank() == 0) return;
  spdlog::set_level(spdlog::level::off);
  if (std::freopen("/dev/null", "w", stdout) == nullptr) throw SystemError("/dev/null cannot be opened");
}

void leave_processes() {
  if (!world) return;
  world->group.meet();  // so that the first process hears of a failure until all are done
  world.reset();
  MPI_Finalize();
}

const ProcessGroup& all_processes() {
  if (!world) return one_process();
  return world->group;
}

int local_rank() { return world ? world->local_rank : 0; }

void send(int rank, int channel, const std::string& bytes) {
  MPI_Request request;
  MPI_Isend(bytes.data(), count_of(bytes.size()), MPI_BYTE, rank, channel, MPI_COMM_WORLD, &request);
  wait(request);
}

std::string receive(int rank, int channel) {
  MPI_Message message;
  MPI_Status status;
  for (int found = 0;;) {
    MPI_Improbe(rank, channel, MPI_COMM_WORLD, &found, &message, &status);
    if (found != 0) break;
    std::this_thread::sleep_for(1ms);
  }
  int bytes = 0;
  MPI_Get_count(&status, MPI_BYTE, &bytes);
  std::string text(static_cast<std::size_t>(bytes), '\0');
  MPI_Request request;
  MPI_Imrecv(text.data(), bytes, MPI_BYTE, &message, &request);
  wait(request);
  return text;
}

void fail_processes(ExitCode code, const std::string& message) {
  if (world && world->group.size() > 1) world->failures.fail(code, message);
}

}  // namespace tq
