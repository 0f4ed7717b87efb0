#include <fmt/format.h>
#include <fmt/ranges.h>

#include <charconv>
#include <cstdio>
#include <filesystem>
#include <random>

#include "core/error.h"
#include "datasets/atomic_file.h"
#include "experiments/codec_options.h"
#include "experiments/command_line.h"
#include "experiments/commands.h"
#include "experiments/first_gpu.h"
#include "experiments/progress_bar.h"
#include "experiments/table.h"
#include "experiments/tune/stored_choices.h"
#include "experiments/tune/tune_problem.h"
#include "jit/cubin_cache.h"
#include "kernel_templates/shapes.h"
#include "kernel_templates/tuning_file.h"

namespace tq {
namespace po = boost::program_options;

namespace {

using bench::AttendShape;
using bench::CodecPair;
using bench::Json;
using tune::Outcome;
using tune::Problem;

// Those of `tq bench`.
const std::vector<std::string> kDefaultShapes{"1,8,4096",  "1,8,16384", "1,8,131072",
                                              "8,8,16384", "8,8,32768", "32,8,4096"};
constexpr int kMostSequences = 4096, kFewestTokens = 1024, kMostTokens = 1 << 24;

AttendShape parse_shape(const std::string& text, int group, int d) {
  AttendShape shape{0, 0, 0, group, d};
  const char *at = text.data(), *const end = at + text.size();
  for (int* field : {&shape.batch, &shape.kv_heads, &shape.tokens}) {
    if (field != &shape.batch && (at == end || *at++ != ','))
      throw UsageError("--shape '{}' is not B,H,N", text);
    const auto [next, error] = std::from_chars(at, end, *field);
    if (error != std::errc()) throw UsageError("--shape '{}' is not B,H,N", text);
    at = next;
  }
  if (at != end) throw UsageError("--shape '{}' is not B,H,N", text);
  if (shape.batch < 1 || shape.batch > kMostSequences || shape.kv_heads < 1 ||
      shape.kv_heads > bench::TokenSource::kMostHeads || shape.tokens < kFewestTokens ||
      shape.tokens > kMostTokens) {
    throw UsageError("--shape {}: 1 to {} sequences, 1 to {} KV heads and {} to {} tokens can be tuned", text,
                     kMostSequences, bench::TokenSource::kMostHeads, kFewestTokens, kMostTokens);
  }
  return shape;
}

std::vector<AttendShape> shapes_of(const CommandLine& line) {
  const int group = line.get<int>("group"), d = line.get<int>("dim");
  if (group < 1 || group > gpu::kMaxGroup)
    throw UsageError("--group {}: the kernels take 1 to {} query heads a KV head", group, gpu::kMaxGroup);
  gpu::require_kernels(d);
  std::vector<AttendShape> shapes;
  for (const std::string& text : line.get<std::vector<std::string>>("shape"))
    shapes.push_back(parse_shape(text, group, d));
  return shapes;
}

std::vector<CodecPair> codecs_of(const CommandLine& line) {
  if (line.given("alpha")) throw UsageError("tune: --alpha changes no kernel");
  const CodecOptions options = read_codec_options(line);
  bool chosen = false;
  for (const char* name :
       {"key-mode", "key-bits", "scale", "sketch", "value-mode", "value-bits", "group-size", "rotation"})
    chosen = chosen || line.given(name);
  if (chosen) return {{options.key, options.value, options.rotation}};
  return {bench::mse_pair(4), bench::mse_pair(3), bench::mse_pair(2), bench::prod_pair()};
}

void print_candidates(const std::vector<Problem>& problems) {
  Table table({"kernel", "shape", "untuned", "warps x stages"});
  for (const Problem& problem : problems) {
    std::string blocks;
    for (const BlockChoice& choice : tune::block_candidates(problem, gpu::kServerSharedLimit))
      blocks += fmt::format("{}{}x{}", blocks.empty() ? "" : " ", choice.warps, choice.stages);
    const BlockChoice untuned = tune::untuned_choice(problem, gpu::kServerSharedLimit);
    table.row({problem.key.kernel, bench::describe(problem.shape),
               fmt::format("{}x{}", untuned.warps, untuned.stages), blocks});
  }
  fmt::print(
      "{}\nof a GPU with {} KB of shared memory a block; each with as many blocks as untuned, one a "
      "multiprocessor, and those that fill the device once and twice\n",
      table.text(), gpu::kServerSharedLimit >> 10);
}

void print_stored(const FirstGpu& gpu, const Tuning& tuning, const std::string& path) {
  if (tuning.choices().empty()) {
    fmt::print("{}: nothing for {} with this driver, NVRTC and build\n", path, gpu.device().info().name);
    return;
  }
  Table table({"kernel", "rows", "tiles a row", "choice"});
  for (const auto& [key, choice] : tuning.choices()) {
    table.row({key.kernel, fmt::format("2^{}", key.log2_rows), fmt::format("2^{}", key.log2_tiles),
               tune::describe(choice)});
  }
  fmt::print("{}, {}\n\n{}", path, gpu.device().info().name, table.text());
}

Json to_json(const BlockChoice& choice) {
  return {{"warps", choice.warps}, {"stages", choice.stages}, {"blocks", choice.blocks}};
}

Json to_json(const tune::Candidate& candidate) {
  Json json = to_json(candidate.choice);
  json["median_us"] = candidate.median_us;
  return json;
}

Json to_json(const Problem& problem, const Outcome& outcome) {
  Json json{{"kernel", problem.key.kernel},   {"codec", tune::codec_name(problem)},
            {"batch", problem.shape.batch},   {"kv_heads", problem.shape.kv_heads},
            {"tokens", problem.shape.tokens}, {"group", problem.shape.group},
            {"d", problem.shape.d},           {"failures", outcome.failures}};
  if (!outcome.untuned_holds) return json;
  Json measured = Json::array();
  for (const tune::Candidate& candidate : outcome.measured) measured.push_back(to_json(candidate));
  json.update({{"untuned", to_json(outcome.untuned)},
               {"best", to_json(outcome.best)},
               {"gain", outcome.gain()},
               {"measured", std::move(measured)}});
  return json;
}

void add_row(Table& table, const Problem& problem, const Outcome& outcome) {
  const std::string kernel =
      fmt::format("{} {}", problem.is_scores() ? "scores" : "attend", tune::codec_name(problem));
  const std::string shape = bench::describe(problem.shape);
  if (!outcome.untuned_holds) return table.row({kernel, shape, "FAILED", "", "", ""});
  table.row({kernel, shape, fmt::format("{:.2f}", outcome.untuned.median_us),
             fmt::format("{:.2f}", outcome.best.median_us), tune::describe(outcome.best.choice),
             fmt::format("{:.1f} %", 100 * outcome.gain())});
}

// Found before the work rather than after it.
std::string writable_tuning_file() {
  const std::string folder = default_cache_folder();
  if (folder.empty()) throw SystemError("tune: no place for what is found; set XDG_CACHE_HOME or HOME");
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  if (error) throw SystemError("{}: cannot make the folder: {}", folder, error.message());
  return tuning_file(folder);
}

ExitCode measure(FirstGpu& gpu, const std::vector<Problem>& problems, std::uint64_t seed,
                 const std::string& json_path) {
  const std::string path = writable_tuning_file();
  const TuningScope scope = tuning_scope(gpu.device().info(), gpu.kernels().sources());
  gpu.tuning() = {};
  tune::compile_candidates(gpu, problems);
  bench::Run run(gpu, seed);
  const bench::TokenSource source(gpu.device(), problems.front().shape.d, run.random);
  Table table({"kernel", "shape", "untuned us", "best us", "choice", "gain"});
  Json rows = Json::array();
  std::vector<std::string> failures;
  bool all_held = true;
  {
    ProgressBar bar("tuning", problems.size());
    for (const Problem& problem : problems) {
      const Outcome outcome = tune::tune_problem(run, problem, source);
      all_held = all_held && outcome.untuned_holds;
      failures.insert(failures.end(), outcome.failures.begin(), outcome.failures.end());
      add_row(table, problem, outcome);
      rows.push_back(to_json(problem, outcome));
      // After every problem: what was found stays when a later one fails.
      if (outcome.untuned_holds) {
        Tuning found;
        found.set(problem.key, outcome.best.choice);
        tune::store_choices(path, scope, found);
      }
      if (!json_path.empty()) {
        const Json result{
            {"format", "turboquant-tune"}, {"device", scope.device}, {"driver", scope.driver_version},
            {"nvrtc", scope.nvrtc},        {"seed", seed},           {"rows", rows}};
        write_file_atomically(json_path, result.dump(2) + "\n");
      }
      bar.advance(1);
    }
  }
  for (const std::string& failure : failures) fmt::print(stderr, "tq: {}\n", failure);
  fmt::print("{}\nstored in {}\n", table.text(), path);
  return all_held ? ExitCode::done : ExitCode::gate_failed;
}

}  // namespace

ExitCode run_tune(const Arguments& arguments) {
  CommandLine line(
      "tune",
      "find the fastest blocks of the attention and score kernels on this GPU, each result checked "
      "first, and keep them for all later runs; exit code 1 where an untuned kernel's is wrong",
      "tq tune --shape 8,8,32768 --key-bits 4 --value-bits 4");
  line.add()("shape",
             po::value<std::vector<std::string>>()
                 ->multitoken()
                 ->value_name("B,H,N ...")
                 ->default_value(kDefaultShapes, fmt::format("{}", fmt::join(kDefaultShapes, " "))),
             "sequences, KV heads and tokens")("group", po::value<int>()->value_name("G")->default_value(8),
                                               "query heads a KV head")(
      "dim", po::value<int>()->value_name("D")->default_value(128), "head_dim");
  add_codec_options(line, AlphaTarget::mse);
  line.add()("json", po::value<std::string>()->value_name("FILE")->default_value(""),
             "write all that was measured there as well, as JSON")("dry-run", po::bool_switch(),
                                                                   "only list the candidates; needs no GPU")(
      "show", po::bool_switch(), "only print what is stored for this GPU");
  if (!line.parse(arguments)) return ExitCode::done;
  const bool dry_run = line.get<bool>("dry-run"), show = line.get<bool>("show");
  if (dry_run && show) throw UsageError("tune: --dry-run and --show exclude each other");
  if ((dry_run || show) && line.given("json"))
    throw UsageError("tune: --json is for what is measured; leave out --dry-run and --show");
  const std::vector<Problem> problems = tune::problems(shapes_of(line), codecs_of(line));
  if (dry_run) {
    print_candidates(problems);
    return ExitCode::done;
  }
  FirstGpu gpu;
  if (show) {
    print_stored(gpu, gpu.tuning(), tuning_file(default_cache_folder()));
    return ExitCode::done;
  }
  const std::uint64_t seed = line.given("seed") ? read_codec_options(line).seed : std::random_device{}();
  return measure(gpu, problems, seed, line.get<std::string>("json"));
}

}  // namespace tq
