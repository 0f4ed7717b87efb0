#include <fmt/format.h>
#include <omp.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <mutex>

#include "core/error.h"
#include "experiments/command_line.h"
#include "experiments/commands.h"
#include "experiments/cuda_backend.h"
#include "experiments/processes.h"
#include "experiments/progress_bar.h"
#include "experiments/shard_option.h"
#include "experiments/sweep/backends.h"
#include "experiments/sweep/capacity.h"
#include "experiments/sweep/fused_output.h"
#include "experiments/sweep/hand_out.h"
#include "experiments/sweep/measurer.h"
#include "experiments/sweep/ordered_jobs.h"
#include "experiments/sweep/perplexity_output.h"
#include "experiments/sweep/result_log.h"
#include "experiments/sweep/run_manifest.h"
#include "experiments/sweep/summary.h"
#include "experiments/sweep/sweep_plan.h"
#include "experiments/sweep/timings.h"
#include "experiments/trust_option.h"

namespace tq {
namespace po = boost::program_options;

namespace {

constexpr int kMostJobs = 256;

using TextList = std::vector<std::string>;

void add_options(CommandLine& line) {
  line.add()("out", po::value<std::string>()->value_name("DIR"),
             "where results.jsonl, timings.jsonl and manifest.json go")(
      "resume", po::bool_switch(), "go on in a DIR that holds a sweep: measure what it lacks")(
      "jobs", po::value<int>()->value_name("N"),
      "configurations at a time in each process, by default one a core; the results do not depend on it")(
      "dry-run", po::bool_switch(), "list the configurations, and what of them DIR lacks")(
      "json", po::bool_switch(), "result lines instead of a table (with --dry-run: configurations)")(
      "set", po::value<TextList>()->composing()->value_name("AXIS=V,..."),
      "values of an axis instead of the file's; may be repeated")(
      "exclude", po::value<TextList>()->composing()->value_name("RULE"),
      "leave out combinations, as in: key-mode=prod & key-bits=1,2; may be repeated");
  add_shard_option(
      line,
      "measure every Nth configuration from the Ith on, into a DIR of its own; tq merge makes one "
      "DIR of all N, with the results of a sweep without --shard byte for byte");
  for (const AxisInfo& axis : axes()) {
    line.add()(axis.name, po::value<std::string>()->value_name("V,..."),
               fmt::format("axis: {} [{}]", axis.help, axis.default_value).c_str());
  }
}

std::array<std::vector<std::string>, kAxes> axis_values(const CommandLine& line) {
  std::array<std::vector<std::string>, kAxes> values;
  for (const AxisInfo& axis : axes()) {
    values[static_cast<std::size_t>(axis.axis)] =
        value_list(axis.axis, line.given(axis.name) ? line.get<std::string>(axis.name) : axis.default_value);
  }
  if (!line.given("set")) return values;
  for (const std::string& text : line.get<TextList>("set")) {
    const std::size_t equals = text.find('=');
    if (equals == std::string::npos) throw UsageError("--set '{}' is not axis=value,...", text);
    const Axis axis = axis_named(std::string_view(text).substr(0, equals));
    values[static_cast<std::size_t>(axis)] = value_list(axis, std::string_view(text).substr(equals + 1));
  }
  return values;
}

SweepPlan read_plan(const CommandLine& line, InputCatalogue& inputs) {
  std::vector<ExcludeRule> rules;
  if (line.given("exclude")) {
    for (const std::string& text : line.get<TextList>("exclude")) rules.push_back(parse_exclude_rule(text));
  }
  SweepPlan plan = plan_sweep(axis_values(line), rules, inputs);
  if (plan.configurations.empty()) throw UsageError("the exclude rules leave no configuration");
  return plan;
}

void print_plan(const SweepPlan& plan, const std::map<std::string, std::string>& done, bool json) {
  std::size_t complete = 0;
  for (const Configuration& configuration : plan.configurations) {
    const bool is_done = done.contains(configuration.key);
    complete += is_done ? 1 : 0;
    if (json) {
      const nlohmann::ordered_json entry{
          {"key", configuration.key}, {"done", is_done}, {"configuration", to_json(configuration.point)}};
      fmt::print("{}\n", entry.dump());
    } else {
      fmt::print("{}  {:4}  {}\n", configuration.key.substr(0, 12), is_done ? "done" : "todo",
                 describe(configuration.point));
    }
  }
  if (json) return;
  fmt::print(
      "{} configurations, {} of them done; of the product, {} points are excluded and {} repeat another\n",
      plan.configurations.size(), complete, plan.excluded, plan.repeated);
}

// A plan that is to run on a GPU fails before anything is written where there is none. What is done already
// needs none.
const DeviceInfo* gpu_for(const SweepPlan& plan, const std::map<std::string, std::string>& done) {
  const bool needed =
      std::any_of(plan.configurations.begin(), plan.configurations.end(), [&](const Configuration& each) {
        return each.point[Axis::backend] == kCudaBackend && !done.contains(each.key);
      });
  return needed ? &default_gpu().device().info() : nullptr;
}

// Measures `todo` and appends the lines; reports what it does to the terminal's bar or to the log.
void measure(const std::vector<const Configuration*>& todo, const std::vector<Worker>& workers, Trust trust,
             const std::string& folder, std::size_t run, ResultLog& log) {
  const std::string timings_path = (std::filesystem::path(folder) / kTimingsFile).string();
  std::ofstream timings(timings_path, std::ios::app);
  std::size_t work = 0;
  for (const Configuration* configuration : todo) work += configuration->work;
  const bool terminal = isatty(STDERR_FILENO) != 0;
  ProgressBar bar("sweeping", work);
  std::mutex bar_mutex;
  const Progress progress = [&](std::size_t vectors) {
    const std::lock_guard lock(bar_mutex);
    bar.advance(vectors);
  };
  const int cores = omp_get_max_threads();
  const auto own = std::count_if(workers.begin(), workers.end(), [](const Worker& w) { return w.rank == 0; });
  Measurer measurer(cores, trust);
  run_in_order(
      todo.size(), workers.size(),
      [&](std::size_t index, std::size_t worker) {
        if (workers[worker].rank == 0) {
          omp_set_num_threads(std::max(1, cores / static_cast<int>(own)));
          return measurer.measure(*todo[index], progress);
        }
        Measured result = measure_at(workers[worker], *todo[index]);
        progress(todo[index]->work);
        return result;
      },
      [&](std::size_t index, const Measured& measured) {
        const Configuration& configuration = *todo[index];
        log.append(configuration.key, measured.line);
        timings << timing_line(configuration.key, run, measured.timing) + "\n" << std::flush;
        if (!timings) throw SystemError("{}: cannot be written; go on with --resume", timings_path);
        if (!terminal) {
          spdlog::info("{}/{} {} ({:.2f} s)", index + 1, todo.size(), describe(configuration.point),
                       measured.timing.seconds);
        }
      });
}

// Leaves the shard's configurations in the plan, and returns what the manifest says of it: null of all.
nlohmann::ordered_json take_shard(const Shard& shard, SweepPlan& plan) {
  if (shard.count == 1) return nullptr;
  const std::size_t all = plan.configurations.size(), count = static_cast<std::size_t>(shard.count);
  if (count > all) {
    throw UsageError("--shard {}/{}: the sweep has {} configurations, and no more shards than that",
                     shard.index + 1, shard.count, all);
  }
  nlohmann::ordered_json entry{{"index", shard.index + 1},
                               {"count", shard.count},
                               {"configurations", all},
                               {"plan_sha256", plan_digest(plan)}};
  std::vector<Configuration> own;
  for (std::size_t i = static_cast<std::size_t>(shard.index); i < all; i += count) {
    own.push_back(std::move(plan.configurations[i]));
  }
  plan.configurations = std::move(own);
  return entry;
}

std::string command_line_of(const Arguments& arguments) {
  std::string text = "tq sweep";
  for (const std::string& argument : arguments) text += " " + argument;
  return text;
}

}  // namespace

ExitCode run_sweep(const Arguments& arguments) {
  CommandLine line(
      "sweep",
      "measure every configuration of an INI file: the product of the axes' comma lists, less what is "
      "excluded",
      "tq sweep --config sweep.ini --out sweep-results");
  add_options(line);
  add_trust_option(line);
  if (!line.parse(arguments)) return ExitCode::done;
  const int most_jobs =
      line.given("jobs") ? line.get<int>("jobs") : std::min(kMostJobs, omp_get_max_threads());
  if (most_jobs < 1 || most_jobs > kMostJobs)
    throw UsageError("--jobs {} is out of range: 1 to {}", most_jobs, kMostJobs);
  InputCatalogue inputs(read_trust(line));
  if (line.get<bool>("dry-run")) {
    SweepPlan plan = read_plan(line, inputs);
    take_shard(read_shard_option(line), plan);
    print_plan(
        plan,
        line.given("out") ? read_results(line.get<std::string>("out")) : std::map<std::string, std::string>(),
        line.get<bool>("json"));
    return ExitCode::done;
  }
  const std::string& folder = line.required("out");
  SweepPlan plan = read_plan(line, inputs);
  const nlohmann::ordered_json shard = take_shard(read_shard_option(line), plan);
  const ProcessGroup& processes = all_processes();
  require_same_plan(processes, plan);
  if (processes.rank() != 0) {
    serve(processes.rank(), share_workers(processes, most_jobs, 0), plan, read_trust(line));
    return ExitCode::done;
  }
  const bool resume = line.get<bool>("resume");
  const DeviceInfo* gpu = gpu_for(plan, resume ? read_results(folder) : std::map<std::string, std::string>());
  ResultLog log(folder, resume);
  std::vector<const Configuration*> todo;
  for (const Configuration& configuration : plan.configurations) {
    if (!log.lines().contains(configuration.key)) todo.push_back(&configuration);
  }
  const std::vector<Worker> workers = share_workers(processes, most_jobs, todo.size());
  RunManifest manifest(folder, command_line_of(arguments), plan, inputs,
                       {std::max<std::size_t>(1, workers.size()), processes.size(), shard}, gpu);
  if (resume) {
    spdlog::info("{} of {} configurations are done", plan.configurations.size() - todo.size(),
                 plan.configurations.size());
  }
  measure(todo, workers, read_trust(line), folder, manifest.run(), log);
  release(workers);
  manifest.finish(todo.size());
  const FusedSummary fused = fused_summary(plan, log.lines());
  if (line.get<bool>("json")) {
    for (const Configuration& configuration : plan.configurations) {
      fmt::print("{}\n", log.lines().at(configuration.key));
    }
  } else {
    std::string_view space;
    for (const std::string& table :
         {summary_table(plan, log.lines(), read_timings(folder)), fused.table,
          capacity_table(plan, log.lines()), perplexity_table(plan, log.lines())}) {
      if (table.empty()) continue;
      fmt::print("{}{}", space, table);
      space = "\n";
    }
  }
  return fused.passed ? ExitCode::done : ExitCode::gate_failed;
}

}  // namespace tq
