#include <fmt/format.h>
#include <omp.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <mutex>

#include "core/error.h"
#include "experiments/command_line.h"
#include "experiments/commands.h"
#include "experiments/cuda_backend.h"
#include "experiments/progress_bar.h"
#include "experiments/sweep/backends.h"
#include "experiments/sweep/capacity.h"
#include "experiments/sweep/fused_attention.h"
#include "experiments/sweep/fused_output.h"
#include "experiments/sweep/model_source.h"
#include "experiments/sweep/ordered_jobs.h"
#include "experiments/sweep/perplexity_output.h"
#include "experiments/sweep/result_line.h"
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
      "configurations at a time, by default one a core; the results do not depend on it")(
      "dry-run", po::bool_switch(), "list the configurations, and what of them DIR lacks")(
      "json", po::bool_switch(), "result lines instead of a table (with --dry-run: configurations)")(
      "set", po::value<TextList>()->composing()->value_name("AXIS=V,..."),
      "values of an axis instead of the file's; may be repeated")(
      "exclude", po::value<TextList>()->composing()->value_name("RULE"),
      "leave out combinations, as in: key-mode=prod & key-bits=1,2; may be repeated");
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

struct Measured {
  std::string line;
  Timing timing;
};

// `source`, `model`: null for what is not measured on such. Without the seconds.
Measured measured(const Configuration& configuration, const DataSource* source, const ModelSource* model,
                  const Progress& progress) {
  if (source != nullptr) {
    const CacheBackend& backend = cache_backend(configuration.point[Axis::backend]);
    const CaptureReport report = source->measure(configuration.codec, backend, progress);
    return {result_line(configuration, report),
            {.keys = report.overall.key_times, .values = report.overall.value_times}};
  }
  if (configuration.perplexity) {
    return {perplexity_line(configuration, measure_perplexity(configuration, *model, progress)), {}};
  }
  std::string line = configuration.capacity ? capacity_line(configuration)
                                            : fused_line(configuration, measure_fused(configuration));
  progress(configuration.work);
  return {std::move(line), {}};
}

// Measures `todo` and appends the lines; reports what it does to the terminal's bar or to the log.
void measure(const std::vector<const Configuration*>& todo, int jobs, Trust trust, const std::string& folder,
             std::size_t run, ResultLog& log) {
  const std::string timings_path = (std::filesystem::path(folder) / kTimingsFile).string();
  std::ofstream timings(timings_path, std::ios::app);
  std::size_t work = 0;
  for (const Configuration* configuration : todo) work += configuration->work;
  const bool terminal = isatty(STDERR_FILENO) != 0;
  ProgressBar bar("sweeping", work);
  std::mutex bar_mutex;
  DataSources sources(omp_get_max_threads(), trust);
  ModelSources models(omp_get_max_threads());
  run_in_order(
      todo.size(), jobs,
      [&](std::size_t index) {
        const Configuration& configuration = *todo[index];
        const auto source = configuration.has_data() ? sources.get(configuration.data) : nullptr;
        const auto model = configuration.perplexity ? models.get(configuration) : nullptr;
        const auto begin = std::chrono::steady_clock::now();
        Measured result = measured(configuration, source.get(), model.get(), [&](std::size_t vectors) {
          const std::lock_guard lock(bar_mutex);
          bar.advance(vectors);
        });
        const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;
        result.timing.seconds = seconds.count();
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
    const SweepPlan plan = read_plan(line, inputs);
    print_plan(
        plan,
        line.given("out") ? read_results(line.get<std::string>("out")) : std::map<std::string, std::string>(),
        line.get<bool>("json"));
    return ExitCode::done;
  }
  const std::string& folder = line.required("out");
  const SweepPlan plan = read_plan(line, inputs);
  const bool resume = line.get<bool>("resume");
  const DeviceInfo* gpu = gpu_for(plan, resume ? read_results(folder) : std::map<std::string, std::string>());
  ResultLog log(folder, resume);
  std::vector<const Configuration*> todo;
  for (const Configuration& configuration : plan.configurations) {
    if (!log.lines().contains(configuration.key)) todo.push_back(&configuration);
  }
  const int jobs =
      static_cast<int>(std::clamp<std::size_t>(todo.size(), 1, static_cast<std::size_t>(most_jobs)));
  RunManifest manifest(folder, command_line_of(arguments), plan, inputs, jobs, gpu);
  if (resume) {
    spdlog::info("{} of {} configurations are done", plan.configurations.size() - todo.size(),
                 plan.configurations.size());
  }
  measure(todo, jobs, read_trust(line), folder, manifest.run(), log);
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
