#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "core/error.h"
#include "jit/architecture.h"
#include "jit/image_store.h"
#include "jit/nvrtc_api.h"
#include "kernel_templates/catalogue.h"

// Compiles the covering part of the catalogue for every architecture that users have. `test_catalogue
// FOLDER`: where compiled kernels are kept from one run to the next. No GPU is needed.
namespace {

using namespace tq;

constexpr int kSkipped = 77;
constexpr std::uint64_t kCacheBytes = std::uint64_t{256} << 20;
// More than a thread can address: ptxas would have said so, unless its report was misread.
constexpr std::uint32_t kMostRegisters = 255;
// Loads and stores together. A few words around a prologue cost nothing; a kilobyte is a main loop in memory.
constexpr std::uint32_t kMostSpilledBytes = 1024;
// Without an attribute a kernel cannot have more.
constexpr std::uint32_t kMostStaticSharedBytes = 48 << 10;

#ifdef __SANITIZE_ADDRESS__
constexpr bool kSanitized = true;
#else
constexpr bool kSanitized = false;
#endif

struct Job {
  const CatalogueEntry* entry;
  Architecture architecture;
  std::optional<ImageStore::Found> found;
  std::string error, report;

  std::uint32_t spilled_bytes() const {
    return found->image.usage.spill_store_bytes + found->image.usage.spill_load_bytes;
  }
  // Empty where all is well.
  std::string problem() const {
    if (!found) return error;
    const ResourceUsage& usage = found->image.usage;
    if (usage.registers == 0 || usage.registers > kMostRegisters)
      return fmt::format("{} registers", usage.registers);
    if (spilled_bytes() > kMostSpilledBytes) return fmt::format("{} bytes spilled", spilled_bytes());
    if (usage.static_shared_bytes > kMostStaticSharedBytes)
      return fmt::format("{} bytes of static shared memory", usage.static_shared_bytes);
    return {};
  }
  void print(const char* what) const {
    fmt::print("{:8} {:7} {}", what, to_string(architecture), entry->name);
    if (found) fmt::print(": {} registers, {} bytes spilled", found->image.usage.registers, spilled_bytes());
    fmt::print("\n");
  }
};

std::vector<Architecture> architectures() {
  if (kSanitized) return {{9, 0}};
  std::vector<Architecture> result{{8, 0}, {8, 6}, {8, 9}, {9, 0}, newest_architecture()};
  std::sort(result.begin(), result.end());
  result.erase(std::unique(result.begin(), result.end()), result.end());
  return result;
}

std::vector<CatalogueEntry> entries() {
  std::vector<CatalogueEntry> all = covering_catalogue();
  if (!kSanitized) return all;
  // The compiler is not ours to check for memory errors; a few kernels take our side of it through its paths.
  std::vector<CatalogueEntry> few;
  for (std::size_t i = 0; i < all.size(); i += 10) few.push_back(all[i]);
  return few;
}

void run(std::vector<Job>& jobs, ImageStore& store) {
  std::atomic<std::size_t> next = 0;
  const auto work = [&] {
    for (std::size_t i = next++; i < jobs.size(); i = next++) {
      Job& job = jobs[i];
      try {
        job.found = store.get(job.entry->source, job.architecture);
      } catch (const CompileError& error) {
        job.error = error.what();
        job.report = error.report();
      } catch (const std::exception& error) {
        job.error = error.what();
      }
    }
  };
  std::vector<std::jthread> threads;
  for (unsigned i = 1; i < std::thread::hardware_concurrency(); ++i) threads.emplace_back(work);
  work();
}

int compile_all(const std::string& folder) {
  const std::vector<CatalogueEntry> list = entries();
  const std::vector<Architecture> targets = architectures();
  std::vector<Job> jobs;
  for (const CatalogueEntry& entry : list) {
    for (const Architecture& architecture : targets) jobs.push_back({&entry, architecture, {}, {}, {}});
  }
  ImageStore store(kernel_sources(), CubinCache(folder, kCacheBytes));
  const auto start = std::chrono::steady_clock::now();
  run(jobs, store);
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();

  std::size_t failed = 0, compiled = 0, cached = 0, spilling = 0;
  std::uint32_t worst = 0;
  for (const Job& job : jobs) {
    if (job.found) {
      ++(job.found->from_cache ? cached : compiled);
      spilling += job.spilled_bytes() > 0 ? 1 : 0;
      worst = std::max(worst, job.spilled_bytes());
    }
    if (const std::string problem = job.problem(); !problem.empty()) {
      if (++failed == 1 && !job.report.empty()) fmt::print("{}\n", job.report);
      job.print("FAILED");
      fmt::print("         {}\n", problem);
    } else if (job.spilled_bytes() > 0) {
      job.print("spills");
    }
  }
  if (const std::string problem = store.cache_problem(); !problem.empty()) fmt::print("{}\n", problem);
  fmt::print(
      "{} entries, {} architectures: {} compiled, {} from cache, {} failed, "
      "{} spill (at most {} bytes), {:.1f} s, NVRTC {}\n",
      list.size(), targets.size(), compiled, cached, failed, spilling, worst, seconds, nvrtc::identity());
  return failed == 0 && !jobs.empty() ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    fmt::print(stderr, "usage: test_catalogue FOLDER\n");
    return 2;
  }
  try {
    nvrtc::api();
  } catch (const SystemError& error) {
    fmt::print("skipped: {}\n", error.what());
    return kSkipped;
  }
  try {
    return compile_all(argv[1]);
  } catch (const std::exception& error) {
    fmt::print(stderr, "{}\n", error.what());
    return 1;
  }
}
