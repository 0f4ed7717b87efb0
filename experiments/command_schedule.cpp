#include <fmt/format.h>

#include <future>
#include <nlohmann/json.hpp>

#include "calibration/schedule.h"
#include "core/error.h"
#include "core/sha256.h"
#include "datasets/atomic_file.h"
#include "experiments/calibration_run.h"
#include "experiments/codec_options.h"
#include "experiments/command_line.h"
#include "experiments/commands.h"
#include "experiments/progress_bar.h"
#include "experiments/table.h"
#include "experiments/trust_option.h"

namespace tq {
namespace po = boost::program_options;

namespace {

using Json = nlohmann::ordered_json;

std::int64_t heads_in_all(const Schedule& schedule) {
  std::int64_t heads = 0;
  for (const LayerSensitivity& layer : schedule.layers) heads += layer.num_kv_heads;
  return heads;
}

struct Row {
  std::string keys, values;
  std::int64_t bytes;
  double fit_keys, fit_values, held_out_sum, held_out;
};

Row row_of(const Schedule& schedule, const CodecCandidates& candidates, std::size_t layer) {
  const LayerSensitivity& from = schedule.layers[layer];
  const CodecPair& pair = schedule.codecs[layer];
  const KeyConfig& key = candidates.keys[pair.key];
  const ValueConfig& value = candidates.values[pair.value];
  const auto harm = [](const std::vector<CandidateMetrics>& measured, std::size_t part) {
    return measured[part].harm();
  };
  return {describe(key),
          describe(value),
          from.num_kv_heads *
              std::int64_t{bytes_per_token(key, from.head_dim) + bytes_per_token(value, from.head_dim)},
          harm(from.keys[pair.key], kFitPart),
          harm(from.values[pair.value], kFitPart),
          harm(from.keys[pair.key], kHeldOutPart) + harm(from.values[pair.value], kHeldOutPart),
          schedule.held_out_by_layer[layer]};
}

std::string schedule_table(const Schedule& schedule, const CodecCandidates& candidates) {
  Table table({"layer", "keys", "values", "bytes/token", "fit: keys", "fit: values", "held-out: sum",
               "held-out: both"});
  for (std::size_t i = 0; i < schedule.layers.size(); ++i) {
    const Row row = row_of(schedule, candidates, i);
    table.row({fmt::format("{}", schedule.layers[i].layer), row.keys, row.values,
               fmt::format("{}", row.bytes), fmt::format("{:.5f}", row.fit_keys),
               fmt::format("{:.5f}", row.fit_values), fmt::format("{:.5f}", row.held_out_sum),
               fmt::format("{:.5f}", row.held_out)});
  }
  table.rule();
  table.row({"all", "", "", fmt::format("{}", schedule.bytes), "", fmt::format("{:.5f}", schedule.fit_sum),
             fmt::format("{:.5f}", schedule.held_out_sum), fmt::format("{:.5f}", schedule.held_out_harm)});
  return table.text();
}

std::string name_of(const UniformConfiguration& one, const CodecCandidates& candidates) {
  return describe(candidates.keys[one.codecs.key]) + " + " + describe(candidates.values[one.codecs.value]);
}

std::string standing_table(const Schedule& schedule, const CodecCandidates& candidates) {
  Table table({"configuration", "bytes/token", "output err", "+-", "against the schedule"});
  const auto row = [&](const std::string& name, std::int64_t bytes, double harm, double error) {
    table.row({name, fmt::format("{}", bytes), fmt::format("{:.5f}", harm), fmt::format("{:.5f}", error),
               fmt::format("{:.3f}x", harm / schedule.held_out_harm)});
  };
  bool placed = false;
  const auto place_schedule = [&] {
    row("the schedule", schedule.bytes, schedule.held_out_harm, schedule.held_out_standard_error);
    placed = true;
  };
  for (const UniformConfiguration& one : schedule.uniform) {
    if (!placed && schedule.held_out_harm <= one.harm) place_schedule();
    row(name_of(one, candidates), one.bytes, one.harm, one.standard_error);
  }
  if (!placed) place_schedule();
  return table.text();
}

Json to_json(const Schedule& schedule, const ScheduleOptions& options) {
  const CodecCandidates& candidates = options.candidates;
  Json layers = Json::array(), uniform = Json::array();
  for (std::size_t i = 0; i < schedule.layers.size(); ++i) {
    const Row row = row_of(schedule, candidates, i);
    layers.push_back({{"layer", schedule.layers[i].layer},
                      {"key", row.keys},
                      {"value", row.values},
                      {"bytes_per_token", row.bytes},
                      {"fit_key_harm", row.fit_keys},
                      {"fit_value_harm", row.fit_values},
                      {"held_out_sum", row.held_out_sum},
                      {"held_out_harm", row.held_out}});
  }
  for (const UniformConfiguration& one : schedule.uniform) {
    uniform.push_back({{"key", describe(candidates.keys[one.codecs.key])},
                       {"value", describe(candidates.values[one.codecs.value])},
                       {"bytes_per_token", one.bytes},
                       {"held_out_harm", one.harm},
                       {"standard_error", one.standard_error}});
  }
  return {{"budget", options.budget},
          {"bytes_per_token", schedule.bytes},
          {"first_tokens", options.policy.sinks},
          {"recent_window", options.policy.recent},
          {"fit_sum", schedule.fit_sum},
          {"held_out_sum", schedule.held_out_sum},
          {"held_out_harm", schedule.held_out_harm},
          {"standard_error", schedule.held_out_standard_error},
          {"stands", schedule.stands()},
          {"layers", layers},
          {"uniform", uniform}};
}

std::string verdict(const Schedule& schedule, const ScheduleOptions& options) {
  if (schedule.uniform.empty()) {
    return fmt::format("no uniform configuration of these codecs fits into {} bytes a token", options.budget);
  }
  const UniformConfiguration& best = schedule.uniform.front();
  const std::string name = name_of(best, options.candidates);
  if (!schedule.stands()) {
    return fmt::format("{} in every layer does less harm by the held-out queries: take that", name);
  }
  return fmt::format("of {} uniform configurations the best, {}, does {:.1f} % more harm",
                     schedule.uniform.size(), name, 100 * (best.harm / schedule.held_out_harm - 1));
}

// Has codes that no GPU kernel reads (kernel_templates/catalogue.h).
bool host_only(const Artefact& artefact) {
  for (const LayerArtefact& layer : artefact.layers) {
    const bool rotated = layer.value.mode == ValueMode::rotated;
    if (layer.key.bits < 2 || layer.key.bits > 4) return true;
    if (rotated && (layer.value.bits < 2 || layer.value.bits > 4)) return true;
  }
  return false;
}

}  // namespace

ExitCode run_schedule(const Arguments& arguments) {
  CommandLine line("schedule", "choose codecs by layer for the least harm under a byte budget",
                   "tq schedule --capture model.kv.h5 --budget 800 --out model.tq.h5");
  line.add()("capture", po::value<std::string>()->value_name("FILE"), "capture to measure on (*.kv.h5)")(
      "budget", po::value<std::int64_t>()->value_name("BYTES"),
      "bytes of a quantised token: keys and values of all layers and KV heads")(
      "out", po::value<std::string>()->value_name("FILE"), "artefact to write (*.tq.h5)")(
      "protect-first", po::value<int>()->default_value(0)->value_name("N"),
      "first layers that take the least harmful codecs")(
      "protect-last", po::value<int>()->default_value(0)->value_name("N"), "the same of the last layers")(
      "json", po::bool_switch(), "JSON instead of tables");
  add_candidate_options(line,
                        {.key_bits = "1,2,3,4", .value_modes = "rotated,group", .value_bits = "1,2,3,4"});
  add_policy_options(line);
  add_trust_option(line);
  if (!line.parse(arguments)) return ExitCode::done;
  const std::string& path = line.required("capture");
  if (!line.given("budget")) {
    throw UsageError("schedule: --budget is missing; see tq schedule --help");
  }
  CaptureReader capture(path, read_trust(line));
  ScheduleOptions options;
  options.candidates = read_candidates(line, capture.info());
  options.budget = line.get<std::int64_t>("budget");
  options.protect_first = line.get<int>("protect-first");
  options.protect_last = line.get<int>("protect-last");
  options.policy = read_policy(line);
  const bool write = line.given("out");
  const std::string out = write ? line.get<std::string>("out") : "";
  if (write) {
    refuse_overwriting(path, out);
    const AtomicFile writable(out);  // fails here, not after the work
  }
  Schedule schedule;
  {
    ProgressBar bar("measuring", schedule_work(capture.info(), options.candidates));
    schedule = make_schedule(capture, options, bar.callback());
  }
  Artefact artefact = schedule_artefact(capture.info(), options, schedule);
  if (write) {
    stamp_provenance(artefact.provenance, {path}, {sha256_file_hex(path)},
                     fmt::format("tq schedule {}", fmt::join(arguments, " ")));
    write_artefact(artefact, out);
  }
  if (line.get<bool>("json")) {
    fmt::print("{}\n", to_json(schedule, options).dump(2));
  } else {
    fmt::print(
        "least harm within {} bytes a token ({:.1f} a layer and KV head); harm: attention-output error, mean "
        "over layers\n\n{}\n",
        options.budget, static_cast<double>(options.budget) / static_cast<double>(heads_in_all(schedule)),
        schedule_table(schedule, options.candidates));
    fmt::print(
        "by the held-out queries, keys and values of all layers quantised, against every uniform "
        "configuration "
        "of the budget:\n\n{}\n{}\n",
        standing_table(schedule, options.candidates), verdict(schedule, options));
    if (host_only(artefact)) {
      fmt::print(
          "no GPU kernel reads keys or rotated values of other than 2 to 4 bits; --key-bits 2,3,4 "
          "--value-bits "
          "2,3,4 leaves them out\n");
    }
    if (write) fmt::print("wrote {}\n", out);
  }
  return schedule.stands() ? ExitCode::done : ExitCode::gate_failed;
}

}  // namespace tq
