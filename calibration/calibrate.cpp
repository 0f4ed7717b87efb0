#include "calibration/calibrate.h"

#include <algorithm>
#include <limits>

#include "calibration/artefact/layer_message.h"
#include "calibration/cache_backend.h"
#include "calibration/evaluation.h"
#include "calibration/fit_alpha.h"
#include "calibration/fit_codebook.h"
#include "calibration/gate.h"
#include "calibration/layer_statistics.h"
#include "calibration/residual_alpha.h"
#include "core/error.h"
#include "core/message.h"
#include "core/value_codec.h"

namespace tq {
namespace {

constexpr std::size_t kFit = 0, kHeldOut = 1;  // parts of an evaluation

// The tables of one side of a layer under one candidate: one entry, or one a KV head.
template <typename Tables>
struct CandidateTables {
  std::string name;
  std::vector<Tables> tables;
};

std::vector<double> fit_alphas(AlphaTarget target, const std::vector<ResidualStatistics>& statistics,
                               const LayerContext& layer) {
  std::vector<double> alphas;
  for (const ResidualStatistics& one : statistics)
    alphas.push_back(fit_alpha(target, one, layer.info.head_dim, layer.where));
  return alphas;
}

std::vector<KeyTables> with_alphas(const std::vector<KeyTables>& tables, const std::vector<double>& alphas) {
  std::vector<KeyTables> result;
  for (std::size_t i = 0; i < alphas.size(); ++i) {
    result.push_back({tables[tables.size() == 1 ? 0 : i].codebook, alphas[i]});
  }
  return result;
}

// The default first; in prod mode also the default's codebook with a fitted alpha, because alpha usually
// helps and a fitted codebook often does not.
std::vector<CandidateTables<KeyTables>> key_candidates(LayerContext& layer, const CalibrationOptions& options,
                                                       const std::vector<CoordinateHistogram>& histograms) {
  const KeyTables fallback = default_key_tables(options.key, layer.info.head_dim);
  std::vector<CandidateTables<KeyTables>> candidates{{"default", {fallback}}};
  std::vector<KeyTables> tuned;
  for (const CoordinateHistogram& histogram : histograms) {
    tuned.push_back({fit_codebook(histogram, options.key.table_bits(), layer.where), fallback.qjl_scale});
  }
  if (options.key.mode == KeyMode::prod && options.alpha != AlphaTarget::unbiased) {
    const auto residuals =
        collect_residuals(layer, options.per_head, options.key, {{fallback}, tuned}, options.alpha);
    candidates.push_back({"default table, fitted alpha",
                          with_alphas({fallback}, fit_alphas(options.alpha, residuals[0], layer))});
    tuned = with_alphas(tuned, fit_alphas(options.alpha, residuals[1], layer));
  }
  candidates.push_back({"tuned", tuned});
  return candidates;
}

std::vector<CandidateTables<Codebook>> value_candidates(const LayerContext& layer,
                                                        const CalibrationOptions& options,
                                                        const std::vector<CoordinateHistogram>& histograms) {
  std::vector<Codebook> tuned;
  for (const CoordinateHistogram& histogram : histograms)
    tuned.push_back(fit_codebook(histogram, options.value.bits, layer.where));
  return {{"default", {default_value_table(options.value, layer.info.head_dim)}}, {"tuned", tuned}};
}

// Both sides in one pass over the layer, so that its tokens are read once.
void judge(LayerContext& layer, const CalibrationOptions& options,
           const std::vector<CandidateTables<KeyTables>>& keys,
           const std::vector<CandidateTables<Codebook>>& values, LayerArtefact& result) {
  std::vector<Contender> contenders;
  for (const auto& candidate : keys) {
    Contender contender{candidate.name, false, {}, {}};
    for (const KeyTables& tables : candidate.tables) {
      contender.keys.push_back(host_backend().keys(options.key, layer.rotation, layer.sketch, tables));
    }
    contenders.push_back(std::move(contender));
  }
  for (const auto& candidate : values) {
    Contender contender{candidate.name, true, {}, {}};
    for (const Codebook& table : candidate.tables) {
      contender.values.push_back(
          host_backend().values(options.value, layer.info.head_dim, layer.rotation, table));
    }
    contenders.push_back(std::move(contender));
  }
  if (contenders.empty()) return;
  LayerEvaluation evaluation(layer.info.head_dim, layer.num_kv_heads, layer.num_q_heads, layer.softmax_scale,
                             layer.queries, std::move(contenders), 2, kQuantiseAll, *layer.team);
  layer.stream.for_each([&](const TokenBlock& block) {
    evaluation.add(block, layer.held_out(block) ? kHeldOut : kFit);
    layer.progress(block.count);
  });
  evaluation.gather();
  for (std::size_t i = 0; i < keys.size(); ++i) {
    result.key_gate.candidates.push_back({keys[i].name, key_metrics(evaluation.metrics(i, kFit)),
                                          key_metrics(evaluation.metrics(i, kHeldOut))});
  }
  for (std::size_t i = 0; i < values.size(); ++i) {
    result.value_gate.candidates.push_back({values[i].name,
                                            value_metrics(evaluation.metrics(keys.size() + i, kFit)),
                                            value_metrics(evaluation.metrics(keys.size() + i, kHeldOut))});
  }
  apply_gate(GateSide::keys, result.key_gate);
  apply_gate(GateSide::values, result.value_gate);
}

// Everything of the artefact but the layers.
Artefact without_layers(const CaptureInfo& info, const CalibrationOptions& options, const TokenSplit& split,
                        const std::vector<int>& layers) {
  Artefact artefact;
  artefact.num_q_heads = info.num_q_heads;
  artefact.key_basis = info.key_basis;
  artefact.softmax_scale = info.softmax_scale;
  artefact.provenance.model = info.model;
  artefact.provenance.fit_tokens = static_cast<std::int64_t>(split.fit_tokens());
  artefact.provenance.held_out_tokens = static_cast<std::int64_t>(split.held_out_tokens());
  for (const LayerInfo& layer : info.layers) {
    validate(options.key, layer.head_dim);
    validate(options.value, layer.head_dim);
  }
  for (const int layer : layers) {
    const int head_dim = info.layers[static_cast<std::size_t>(layer)].head_dim;
    artefact.rotations.try_emplace(head_dim, Rotation::make(options.rotation, head_dim, options.seed));
    if (options.key.mode == KeyMode::prod) {
      artefact.sketches.try_emplace(head_dim, Sketch::make(options.key.sketch, head_dim, options.seed));
    }
  }
  return artefact;
}

LayerArtefact calibrate_layer(Capture& capture, LayerContext& layer, const CalibrationOptions& options) {
  const LayerInfo& shape = layer.info;
  if (options.key.mode == KeyMode::prod && options.alpha == AlphaTarget::score &&
      layer.queries.positions_count == 0) {
    throw UsageError(
        "--alpha score needs captured post-RoPE queries, and layer {} has none; use --alpha mse or cos",
        layer.layer);
  }
  LayerArtefact result;
  result.head_dim = shape.head_dim;
  result.num_kv_heads = layer.num_kv_heads;
  result.key = options.key;
  result.value = options.value;
  const bool fit_values = shape.has_v && options.value.mode == ValueMode::rotated;
  const LayerHistograms histograms = collect_histograms(layer, options.per_head, shape.has_k, fit_values);
  std::vector<CandidateTables<KeyTables>> keys;
  std::vector<CandidateTables<Codebook>> values;
  if (shape.has_k) keys = key_candidates(layer, options, histograms.keys);
  if (fit_values) values = value_candidates(layer, options, histograms.values);
  judge(layer, options, keys, values, result);
  if (shape.has_k) {
    result.key_tables = keys[static_cast<std::size_t>(result.key_gate.kept)].tables;
  } else if (shape.has_k_residual) {
    // Every member of a team does all of it: one pass, without a cache that is judged.
    calibrate_from_residuals(capture, layer, options, result);
  } else {
    throw InputError("{}: has neither k nor k_residual; there is nothing to calibrate keys on", layer.where);
  }
  if (fit_values) {
    result.value_tables = values[static_cast<std::size_t>(result.value_gate.kept)].tables;
  } else if (options.value.mode == ValueMode::rotated) {
    result.value_tables = {default_value_table(options.value, shape.head_dim)};
  }
  return result;
}

// How many teams finish first: a team's rounds of layers times the heads of its busiest member. The fewest
// members a team where that is equal, because a team reads its layer once a member.
int count_teams(std::size_t layers, int kv_heads, int processes) {
  const auto ceil_ratio = [](int a, int b) { return (a + b - 1) / b; };
  const int items = static_cast<int>(layers);
  int best = 1, least = std::numeric_limits<int>::max();
  for (int teams = std::min(items, processes); teams >= 1; --teams) {
    const int rounds = ceil_ratio(items, teams) * ceil_ratio(kv_heads, processes / teams);
    if (rounds < least) {
      least = rounds;
      best = teams;
    }
  }
  return best;
}

// The layers that this process has a part in, every `teams`th from its team's on; by place in `layers`.
std::vector<std::size_t> places_of_team(int team, int teams, std::size_t layers) {
  std::vector<std::size_t> places;
  for (auto i = static_cast<std::size_t>(team); i < layers; i += static_cast<std::size_t>(teams)) {
    places.push_back(i);
  }
  return places;
}

}  // namespace

std::string describe(const CalibrationOptions& options) {
  return fmt::format("keys {} {} {} {}, values {} {} {} {}, rotation {}, alpha {}, tables by {}, seed {}, {}",
                     to_string(options.key.mode), options.key.bits, to_string(options.key.scale),
                     to_string(options.key.sketch), to_string(options.value.mode), options.value.bits,
                     to_string(options.value.scale), options.value.group_size, to_string(options.rotation),
                     to_string(options.alpha), options.per_head ? "head" : "layer", options.seed,
                     options.holdout == Holdout::tail ? "tail" : "blocks");
}

std::size_t calibration_work(const CaptureInfo& info, const CalibrationOptions& options,
                             const ProcessGroup& group, const Shard& shard) {
  const std::size_t passes =
      options.key.mode == KeyMode::prod && options.alpha != AlphaTarget::unbiased ? 3 : 2;
  const std::size_t layers = layers_of(shard, info.num_layers).size();
  const int teams = count_teams(layers, info.num_kv_heads, group.size());
  return passes * info.tokens * places_of_team(0, teams, layers).size();
}

Artefact calibrate(Capture& capture, const CalibrationOptions& options, const Progress& progress,
                   const ProcessGroup& group, const Shard& shard) {
  const CaptureInfo& info = capture.info();
  const TokenSplit split(options.holdout, info.tokens);
  const std::vector<int> layers = layers_of(shard, info.num_layers);
  Artefact artefact = without_layers(info, options, split, layers);
  const int teams = count_teams(layers.size(), info.num_kv_heads, group.size());
  const int own_team = group.rank() * teams / group.size();
  const std::unique_ptr<const ProcessGroup> team = group.split(own_team);

  MessageWriter own;  // the team's layers, from its first member
  artefact.layers.resize(layers.size());
  for (const std::size_t place : places_of_team(own_team, teams, layers.size())) {
    const int index = layers[place], head_dim = info.layers[static_cast<std::size_t>(index)].head_dim;
    LayerContext layer(capture, index, &split, std::make_shared<Rotation>(artefact.rotations.at(head_dim)),
                       options.key.mode == KeyMode::prod
                           ? std::make_shared<Sketch>(artefact.sketches.at(head_dim))
                           : nullptr,
                       progress);
    layer.team = team.get();
    artefact.layers[place] = calibrate_layer(capture, layer, options);
    if (team->rank() != 0) continue;
    own(place, artefact.layers[place]);
  }
  if (group.size() == 1) return artefact;
  for (const std::string& bytes : group.all_gather(own.bytes())) {
    for (MessageReader message(bytes); !message.empty();) {
      std::size_t place = 0;
      message(place);
      message(artefact.layers.at(place));
    }
  }
  return artefact;
}

}  // namespace tq
