#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <exception>
#include <mutex>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "core/error.h"
#include "experiments/command_line.h"
#include "experiments/commands.h"
#include "experiments/progress_bar.h"
#include "experiments/table.h"
#include "jit/compiler.h"
#include "jit/cubin_cache.h"
#include "jit/device.h"
#include "jit/image_store.h"
#include "jit/nvrtc_api.h"
#include "kernel_templates/catalogue.h"

namespace tq {
namespace po = boost::program_options;

namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

// One kernel for one architecture.
struct Job {
  KernelSource source;
  Architecture architecture;
};

struct Outcome {
  std::optional<ImageStore::Found> found;  // nothing: it did not compile
  std::string error, report;               // then one line, and the whole
  double seconds = 0;
};

std::vector<Architecture> read_architectures(const std::string& list) {
  std::vector<Architecture> result;
  for (std::size_t start = 0; start <= list.size();) {
    const std::size_t end = std::min(list.find(',', start), list.size());
    const std::string name = list.substr(start, end - start);
    start = end + 1;
    const Architecture architecture = name == "newest" ? newest_architecture()
                                      : name == "device"
                                          ? best_architecture_for(Device::open().info().architecture)
                                          : Architecture::parse(name);
    if (std::find(result.begin(), result.end(), architecture) == result.end()) result.push_back(architecture);
  }
  return result;
}

std::vector<CatalogueEntry> chosen_entries(const CommandLine& line) {
  const bool all = line.get<bool>("all"), filtered = line.given("only");
  std::vector<CatalogueEntry> entries = all || filtered ? catalogue() : covering_catalogue();
  if (filtered) {
    const auto& text = line.get<std::string>("only");
    std::erase_if(entries, [&](const CatalogueEntry& entry) { return entry.name.find(text) == text.npos; });
    if (entries.empty()) throw UsageError("jit: no kernel's name holds '{}'; see tq jit --list --all", text);
  }
  return entries;
}

Outcome run_job(ImageStore& store, const Job& job) {
  Outcome outcome;
  const Clock::time_point start = Clock::now();
  try {
    outcome.found = store.get(job.source, job.architecture);
  } catch (const CompileError& error) {
    outcome.error = error.what();
    outcome.report = error.report();
  }
  outcome.seconds = seconds_since(start);
  return outcome;
}

// Threads take the next job until there is none. What is no CompileError ends all of them and goes on.
std::vector<Outcome> run_jobs(ImageStore& store, const std::vector<Job>& jobs, unsigned thread_count) {
  std::vector<Outcome> outcomes(jobs.size());
  std::atomic<std::size_t> next = 0;
  std::mutex mutex;  // of the bar and of the failure
  ProgressBar bar("compiling", jobs.size());
  std::exception_ptr failure;
  const auto work = [&] {
    for (std::size_t i = next++; i < jobs.size(); i = next++) {
      try {
        outcomes[i] = run_job(store, jobs[i]);
      } catch (...) {
        const std::scoped_lock lock(mutex);
        if (!failure) failure = std::current_exception();
        next = jobs.size();
        return;
      }
      const std::scoped_lock lock(mutex);
      bar.advance(1);
    }
  };
  {
    std::vector<std::jthread> threads;
    for (unsigned i = 1; i < std::min<std::size_t>(thread_count, jobs.size()); ++i)
      threads.emplace_back(work);
    work();
  }
  if (failure) std::rethrow_exception(failure);
  return outcomes;
}

struct Totals {
  std::size_t compiled = 0, cached = 0, failed = 0;
};

Totals count(const std::vector<Outcome>& outcomes) {
  Totals totals;
  for (const Outcome& outcome : outcomes) {
    ++(!outcome.found ? totals.failed : outcome.found->from_cache ? totals.cached : totals.compiled);
  }
  return totals;
}

void print_table(const std::vector<Job>& jobs, const std::vector<Outcome>& outcomes, double seconds) {
  Table table({"kernel", "arch", "registers", "spilled", "stack", "shared", "cubin", "seconds", "from"});
  for (std::size_t i = 0; i < jobs.size(); ++i) {
    const std::string architecture = to_string(jobs[i].architecture);
    const std::string time = fmt::format("{:.3f}", outcomes[i].seconds);
    if (!outcomes[i].found) {
      table.row({jobs[i].source.label, architecture, "-", "-", "-", "-", "-", time, "failed"});
      continue;
    }
    const CompiledImage& image = outcomes[i].found->image;
    const ResourceUsage& usage = image.usage;
    table.row({jobs[i].source.label, architecture, fmt::to_string(usage.registers),
               fmt::to_string(usage.spill_store_bytes + usage.spill_load_bytes),
               fmt::to_string(usage.stack_frame_bytes), fmt::to_string(usage.static_shared_bytes),
               fmt::to_string(image.cubin.size()), time,
               outcomes[i].found->from_cache ? "cache" : "compiler"});
  }
  const Totals totals = count(outcomes);
  fmt::print(
      "{}\nspilled, stack, shared (static) and cubin in bytes\n{} compiled, {} from the cache, {} failed "
      "in {:.1f} s, NVRTC {}\n",
      table.text(), totals.compiled, totals.cached, totals.failed, seconds, nvrtc::identity());
}

void print_json(const std::vector<Job>& jobs, const std::vector<Outcome>& outcomes, double seconds) {
  nlohmann::ordered_json kernels = nlohmann::ordered_json::array();
  for (std::size_t i = 0; i < jobs.size(); ++i) {
    nlohmann::ordered_json row{{"kernel", jobs[i].source.label},
                               {"architecture", to_string(jobs[i].architecture)},
                               {"seconds", outcomes[i].seconds}};
    if (outcomes[i].found) {
      const CompiledImage& image = outcomes[i].found->image;
      const ResourceUsage& usage = image.usage;
      row.update({{"from_cache", outcomes[i].found->from_cache},
                  {"registers", usage.registers},
                  {"spill_store_bytes", usage.spill_store_bytes},
                  {"spill_load_bytes", usage.spill_load_bytes},
                  {"stack_frame_bytes", usage.stack_frame_bytes},
                  {"static_shared_bytes", usage.static_shared_bytes},
                  {"constant_bytes", usage.constant_bytes},
                  {"cubin_bytes", image.cubin.size()}});
    } else {
      row["error"] = outcomes[i].error;
    }
    kernels.push_back(std::move(row));
  }
  const Totals totals = count(outcomes);
  fmt::print("{}\n", nlohmann::ordered_json{{"nvrtc", nvrtc::identity()},
                                            {"compiled", totals.compiled},
                                            {"from_cache", totals.cached},
                                            {"failed", totals.failed},
                                            {"seconds", seconds},
                                            {"kernels", std::move(kernels)}}
                         .dump(2));
}

void print_list(const std::vector<CatalogueEntry>& entries, bool json) {
  if (json) {
    nlohmann::json names = nlohmann::json::array();
    for (const CatalogueEntry& entry : entries) names.push_back(entry.name);
    fmt::print("{}\n", names.dump(2));
    return;
  }
  for (const CatalogueEntry& entry : entries) fmt::print("{}\n", entry.name);
}

void print_cache(const CubinCache& cache, bool json) {
  const CubinCache::Info info = cache.info();
  if (json) {
    fmt::print("{}\n", nlohmann::ordered_json{{"folder", info.folder},
                                              {"entries", info.entries},
                                              {"bytes", info.bytes},
                                              {"max_bytes", info.max_bytes}}
                           .dump(2));
    return;
  }
  constexpr double kMiB = 1 << 20;
  fmt::print("{}: {} kernels, {:.1f} of {:.0f} MiB\n", info.folder, info.entries,
             static_cast<double>(info.bytes) / kMiB, static_cast<double>(info.max_bytes) / kMiB);
}

// The whole report of the first failure, and one line for each.
void print_failures(const std::vector<Outcome>& outcomes) {
  bool first = true;
  for (const Outcome& outcome : outcomes) {
    if (outcome.found) continue;
    if (first) fmt::print(stderr, "{}\n", outcome.report);
    first = false;
  }
  for (const Outcome& outcome : outcomes) {
    if (!outcome.found) fmt::print(stderr, "tq: {}\n", outcome.error);
  }
}

ExitCode compile_entries(const CommandLine& line, std::optional<CubinCache> cache) {
  const bool warm = line.get<bool>("warm");
  if (warm && line.given("arch")) throw UsageError("jit: --warm is for the device at hand; leave out --arch");
  if (warm && !cache) throw UsageError("jit: --warm needs a cache; give --cache DIR");
  const std::vector<CatalogueEntry> entries = chosen_entries(line);
  const std::vector<Architecture> architectures =
      read_architectures(warm ? "device" : line.get<std::string>("arch"));
  std::vector<Job> jobs;
  for (const CatalogueEntry& entry : entries) {
    for (const Architecture& architecture : architectures) jobs.push_back({entry.source, architecture});
  }
  ImageStore store(
      line.given("sources") ? SourceTree::from_folder(line.get<std::string>("sources")) : kernel_sources(),
      std::move(cache));
  const Clock::time_point start = Clock::now();
  const std::vector<Outcome> outcomes = run_jobs(store, jobs, line.get<unsigned>("jobs"));
  const double seconds = seconds_since(start);
  line.get<bool>("json") ? print_json(jobs, outcomes, seconds) : print_table(jobs, outcomes, seconds);
  if (const std::string problem = store.cache_problem(); !problem.empty())
    fmt::print(stderr, "tq: {}\n", problem);
  print_failures(outcomes);
  return count(outcomes).failed == 0 ? ExitCode::done : ExitCode::gate_failed;
}

}  // namespace

ExitCode run_jit(const Arguments& arguments) {
  CommandLine line("jit", "compile GPU kernels, without a GPU, and look after the cache of compiled ones",
                   "tq jit --only decode --arch sm_90,newest");
  line.add()("list", po::bool_switch(), "only print the kernels' names")(
      "only", po::value<std::string>()->value_name("TEXT"), "of all kernels, those whose name holds TEXT")(
      "all", po::bool_switch(),
      "all kernels (without this and --only: a small part that covers every template)")(
      "arch", po::value<std::string>()->value_name("LIST")->default_value("sm_80,sm_86,sm_89,sm_90,newest"),
      "for which GPUs, with commas: sm_90, sm_90a, ..., newest (that NVRTC knows), device (the one at hand)")(
      "jobs",
      po::value<unsigned>()->value_name("N")->default_value(
          std::max(std::thread::hardware_concurrency(), 1U)),
      "compile so many at once")("warm", po::bool_switch(), "compile for the device at hand into the cache")(
      "cache", po::value<std::string>()->value_name("DIR")->default_value(default_cache_folder()),
      "folder of compiled kernels; empty: none")(
      "cache-info", po::bool_switch(), "only say what the cache holds")("cache-clear", po::bool_switch(),
                                                                        "only empty the cache")(
      "sources", po::value<std::string>()->value_name("DIR"),
      "take the templates from this folder instead of the program (for their development)")(
      "json", po::bool_switch(), "JSON instead of a table");
  if (!line.parse(arguments)) return ExitCode::done;
  const bool json = line.get<bool>("json"), list = line.get<bool>("list");
  const bool info = line.get<bool>("cache-info"), clear = line.get<bool>("cache-clear");
  if (list + info + clear + line.get<bool>("warm") > 1) {
    throw UsageError("jit: --list, --warm, --cache-info and --cache-clear exclude each other");
  }
  if (line.get<unsigned>("jobs") == 0) throw UsageError("jit: --jobs must be at least 1");
  if (list) {
    print_list(chosen_entries(line), json);
    return ExitCode::done;
  }
  std::optional<CubinCache> cache;
  if (const auto& folder = line.get<std::string>("cache"); !folder.empty()) cache.emplace(folder);
  if (info || clear) {
    if (!cache) throw UsageError("jit: there is no cache; give --cache DIR");
    if (clear) cache->clear();
    if (const std::string problem = cache->problem(); !problem.empty()) throw SystemError("{}", problem);
    print_cache(*cache, json);
    return ExitCode::done;
  }
  return compile_entries(line, std::move(cache));
}

}  // namespace tq
