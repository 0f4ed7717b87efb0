#include "calibration/schedule.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "calibration/byte_budget.h"
#include "calibration/gate.h"
#include "core/error.h"
#include "core/value_codec.h"

namespace tq {
namespace {

template <typename Config>
std::int64_t layer_bytes(const LayerSensitivity& layer, const Config& config) {
  return std::int64_t{layer.num_kv_heads} * bytes_per_token(config, layer.head_dim);
}

template <typename Config>
std::vector<PricedChoice> priced(const LayerSensitivity& layer, const std::vector<Config>& configs,
                                 const std::vector<std::vector<CandidateMetrics>>& measured) {
  std::vector<PricedChoice> choices;
  for (std::size_t i = 0; i < configs.size(); ++i) {
    choices.push_back({layer_bytes(layer, configs[i]), measured[i][kFitPart].harm()});
  }
  return choices;
}

std::size_t least_harmful(const std::vector<PricedChoice>& choices) {
  const auto before = [](const PricedChoice& a, const PricedChoice& b) {
    return a.harm != b.harm ? a.harm < b.harm : a.bytes < b.bytes;
  };
  return static_cast<std::size_t>(std::min_element(choices.begin(), choices.end(), before) - choices.begin());
}

void choose(const ScheduleOptions& options, Schedule& schedule) {
  const std::size_t count = schedule.layers.size();
  std::vector<std::vector<PricedChoice>> items;  // keys and values of layer 0, of layer 1, ...
  for (const LayerSensitivity& layer : schedule.layers) {
    items.push_back(priced(layer, options.candidates.keys, layer.keys));
    items.push_back(priced(layer, options.candidates.values, layer.values));
  }
  std::vector<std::vector<PricedChoice>> open = items;
  std::vector<std::size_t> protected_choice(items.size());
  const auto is_protected = [&](std::size_t item) {
    const std::size_t layer = item / 2;
    return layer < static_cast<std::size_t>(options.protect_first) ||
           layer + static_cast<std::size_t>(options.protect_last) >= count;
  };
  for (std::size_t i = 0; i < items.size(); ++i) {
    if (!is_protected(i)) continue;
    protected_choice[i] = least_harmful(items[i]);
    open[i] = {items[i][protected_choice[i]]};
  }
  std::vector<std::size_t> choices = least_harm(open, options.budget);
  for (std::size_t i = 0; i < items.size(); ++i) {
    if (is_protected(i)) choices[i] = protected_choice[i];
    schedule.bytes += items[i][choices[i]].bytes;
    schedule.fit_sum += items[i][choices[i]].harm / static_cast<double>(count);
  }
  for (std::size_t i = 0; i < count; ++i) {
    schedule.codecs.push_back({choices[2 * i], choices[2 * i + 1]});
    const LayerSensitivity& layer = schedule.layers[i];
    schedule.held_out_sum += (layer.keys[choices[2 * i]][kHeldOutPart].harm() +
                              layer.values[choices[2 * i + 1]][kHeldOutPart].harm()) /
                             static_cast<double>(count);
  }
}

std::vector<UniformConfiguration> uniform_within(const ScheduleOptions& options, const Schedule& schedule) {
  std::vector<UniformConfiguration> result;
  for (std::size_t k = 0; k < options.candidates.keys.size(); ++k) {
    for (std::size_t v = 0; v < options.candidates.values.size(); ++v) {
      std::int64_t bytes = 0;
      for (const LayerSensitivity& layer : schedule.layers) {
        bytes +=
            layer_bytes(layer, options.candidates.keys[k]) + layer_bytes(layer, options.candidates.values[v]);
      }
      if (bytes <= options.budget) result.push_back({{k, v}, bytes});
    }
  }
  return result;
}

void check_on_held_out(CandidateLayers& layers, const ScheduleOptions& options, Schedule& schedule) {
  schedule.uniform = uniform_within(options, schedule);
  const auto count = static_cast<double>(schedule.layers.size());
  std::vector<double> harms(1 + schedule.uniform.size()), variances(harms.size());  // the schedule's first
  for (std::size_t i = 0; i < schedule.layers.size(); ++i) {
    CandidateLayer layer = layers.open(static_cast<int>(i), schedule.layers[i].key_tables);
    std::vector<Contender> contenders;
    const auto add_contender = [&](const CodecPair& pair) {
      contenders.push_back({"", true, {layer.keys[pair.key]}, {layer.values[pair.value]}});
    };
    add_contender(schedule.codecs[i]);
    for (const UniformConfiguration& one : schedule.uniform) add_contender(one.codecs);
    const auto measured =
        measure_contenders(layer.context, contenders, {layer.queries[kHeldOutPart]}, options.policy);
    schedule.held_out_by_layer.push_back(measured.front().front().harm());
    for (std::size_t j = 0; j < measured.size(); ++j) {
      const CandidateMetrics& metrics = measured[j].front();
      harms[j] += metrics.harm() / count;
      const double error = metrics.standard_errors.output_error.value_or(0) / count;
      variances[j] += error * error;
    }
  }
  schedule.held_out_harm = harms.front();
  schedule.held_out_standard_error = std::sqrt(variances.front());
  for (std::size_t u = 0; u < schedule.uniform.size(); ++u) {
    schedule.uniform[u].harm = harms[u + 1];
    schedule.uniform[u].standard_error = std::sqrt(variances[u + 1]);
  }
  std::stable_sort(schedule.uniform.begin(), schedule.uniform.end(), [](const auto& a, const auto& b) {
    return a.harm != b.harm ? a.harm < b.harm : a.bytes < b.bytes;
  });
}

}  // namespace

Schedule make_schedule(CaptureReader& capture, const ScheduleOptions& options, const Progress& progress) {
  const CaptureInfo& info = capture.info();
  for (const auto& [name, layers] : {std::pair{"--protect-first", options.protect_first},
                                     std::pair{"--protect-last", options.protect_last}}) {
    if (layers < 0 || layers > info.num_layers) {
      throw UsageError("{} is {}; the capture has {} layers", name, layers, info.num_layers);
    }
  }
  CandidateLayers layers(capture, options.candidates, QueryParts::fit_and_held_out, progress);
  Schedule schedule;
  schedule.layers = measure_sensitivity(layers, options.policy);
  choose(options, schedule);
  check_on_held_out(layers, options, schedule);
  return schedule;
}

std::size_t schedule_work(const CaptureInfo& info, const CodecCandidates& candidates) {
  return CandidateLayers::fitting_work(info, candidates) + 2 * info.tokens * info.layers.size();
}

Artefact schedule_artefact(const CaptureInfo& info, const ScheduleOptions& options,
                           const Schedule& schedule) {
  const CodecCandidates& candidates = options.candidates;
  Artefact artefact;
  artefact.num_q_heads = info.num_q_heads;
  artefact.key_basis = info.key_basis;
  artefact.softmax_scale = info.softmax_scale;
  if (options.policy != kQuantiseAll) artefact.policy = options.policy;
  artefact.provenance.model = info.model;
  artefact.provenance.fit_tokens = static_cast<std::int64_t>(info.tokens);
  const auto reason = [&](const std::vector<CandidateMetrics>& measured) {
    return fmt::format(
        "scheduled within {} bytes a token: attention-output error {:.6g} alone, on held-out queries",
        options.budget, measured[kHeldOutPart].harm());
  };
  for (std::size_t i = 0; i < schedule.layers.size(); ++i) {
    const LayerSensitivity& from = schedule.layers[i];
    const CodecPair& pair = schedule.codecs[i];
    LayerArtefact layer;
    layer.head_dim = from.head_dim;
    layer.num_kv_heads = from.num_kv_heads;
    layer.key = candidates.keys[pair.key];
    layer.value = candidates.values[pair.value];
    layer.key_tables = {from.key_tables[pair.key]};
    const std::vector<CandidateMetrics>& key = from.keys[pair.key];
    const std::vector<CandidateMetrics>& value = from.values[pair.value];
    const bool fitted = layer.key.mode == KeyMode::prod && candidates.alpha != AlphaTarget::unbiased;
    layer.key_gate = {{{fitted ? "default table, fitted alpha" : "default",
                        key_metrics(key[kFitPart].metrics), key_metrics(key[kHeldOutPart].metrics)}},
                      0,
                      reason(key)};
    layer.value_gate.reason = reason(value);
    if (layer.value.mode == ValueMode::rotated) {
      layer.value_tables = {default_value_table(layer.value, from.head_dim)};
      layer.value_gate.candidates = {
          {"default", value_metrics(value[kFitPart].metrics), value_metrics(value[kHeldOutPart].metrics)}};
    }
    artefact.rotations.try_emplace(from.head_dim,
                                   Rotation::make(candidates.rotation, from.head_dim, candidates.seed));
    if (layer.key.mode == KeyMode::prod) {
      artefact.sketches.try_emplace(from.head_dim,
                                    Sketch::make(layer.key.sketch, from.head_dim, candidates.seed));
    }
    artefact.layers.push_back(std::move(layer));
  }
  return artefact;
}

}  // namespace tq
