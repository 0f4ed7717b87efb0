#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "calibration/sensitivity.h"
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

// One layer's keys or values under one codec.
struct Measurement {
  int layer;
  const char* side;
  std::string codec;
  int bits;
  int bytes;  // a token, all KV heads
  CandidateMetrics measured;
};

std::vector<Measurement> measurements(const std::vector<LayerSensitivity>& layers,
                                      const CodecCandidates& candidates) {
  std::vector<Measurement> result;
  for (const LayerSensitivity& layer : layers) {
    const auto add = [&](const char* side, const auto& configs, const auto& measured) {
      for (std::size_t i = 0; i < configs.size(); ++i) {
        result.push_back({layer.layer, side, describe(configs[i]), configs[i].bits,
                          layer.num_kv_heads * bytes_per_token(configs[i], layer.head_dim),
                          measured[i].front()});
      }
    };
    add("keys", candidates.keys, layer.keys);
    add("values", candidates.values, layer.values);
  }
  return result;
}

std::string cell(const std::optional<double>& value) { return value ? fmt::format("{:.5f}", *value) : "-"; }
Json number_or_null(const std::optional<double>& value) { return value ? Json(*value) : Json(nullptr); }

std::string ranking(std::vector<Measurement> list) {
  std::stable_sort(list.begin(), list.end(), [](const Measurement& a, const Measurement& b) {
    return a.measured.harm() > b.measured.harm();
  });
  Table table({"rank", "layer", "side", "codec", "output err", "+-", "softmax KL", "bytes/token"});
  for (std::size_t i = 0; i < list.size(); ++i) {
    const Measurement& one = list[i];
    table.row({fmt::format("{}", i + 1), fmt::format("{}", one.layer), one.side, one.codec,
               fmt::format("{:.5f}", one.measured.harm()), cell(one.measured.standard_errors.output_error),
               cell(one.measured.metrics.softmax_kl), fmt::format("{}", one.bytes)});
  }
  return table.text();
}

Json to_json(const std::vector<Measurement>& list) {
  Json entries = Json::array();
  for (const Measurement& one : list) {
    entries.push_back(
        {{"layer", one.layer},
         {"side", one.side},
         {"codec", one.codec},
         {"bits", one.bits},
         {"bytes_per_token", one.bytes},
         {"harm", one.measured.harm()},
         {"harm_standard_error", number_or_null(one.measured.standard_errors.output_error)},
         {"softmax_kl", number_or_null(one.measured.metrics.softmax_kl)},
         {"softmax_kl_standard_error", number_or_null(one.measured.standard_errors.softmax_kl)}});
  }
  return entries;
}

}  // namespace

ExitCode run_sensitivity(const Arguments& arguments) {
  CommandLine line("sensitivity",
                   "quantise one layer's keys or values at a time, all else exact, and rank them by harm",
                   "tq sensitivity --capture model.kv.h5 --key-bits 2,3 --value-bits 2,3");
  line.add()("capture", po::value<std::string>()->value_name("FILE"), "capture to measure on (*.kv.h5)")(
      "json", po::bool_switch(), "JSON instead of a table: one entry a layer, side and codec");
  add_candidate_options(line, {.key_bits = "3", .value_modes = "rotated", .value_bits = "3"});
  add_policy_options(line);
  add_trust_option(line);
  if (!line.parse(arguments)) return ExitCode::done;
  CaptureReader capture(line.required("capture"), read_trust(line));
  const CaptureInfo& info = capture.info();
  const CodecCandidates candidates = read_candidates(line, info);
  const CachePolicy policy = read_policy(line);
  std::vector<LayerSensitivity> layers;
  {
    ProgressBar bar("measuring",
                    CandidateLayers::fitting_work(info, candidates) + info.tokens * info.layers.size());
    const Progress progress = bar.callback();
    CandidateLayers opened(capture, candidates, QueryParts::all, progress);
    layers = measure_sensitivity(opened, policy);
  }
  const std::vector<Measurement> list = measurements(layers, candidates);
  if (line.get<bool>("json")) {
    const Json result{{"harm", "attention-output error"},
                      {"first_tokens", policy.sinks},
                      {"recent_window", policy.recent},
                      {"measurements", to_json(list)}};
    fmt::print("{}\n", result.dump(2));
  } else {
    fmt::print("harm: attention-output error of the layer when this alone is quantised\n\n{}", ranking(list));
  }
  return ExitCode::done;
}

}  // namespace tq
