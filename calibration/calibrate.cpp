#include "calibration/calibrate.h"

#include <algorithm>
#include <map>

#include "calibration/cache_backend.h"
#include "calibration/evaluation.h"
#include "calibration/fit_alpha.h"
#include "calibration/fit_codebook.h"
#include "calibration/gate.h"
#include "calibration/layer_statistics.h"
#include "calibration/residual_alpha.h"
#include "core/error.h"
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
                               int head_dim) {
  std::vector<double> alphas;
  for (const ResidualStatistics& one : statistics) alphas.push_back(fit_alpha(target, one, head_dim));
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
    tuned.push_back({fit_codebook(histogram, options.key.table_bits()), fallback.qjl_scale});
  }
  if (options.key.mode == KeyMode::prod && options.alpha != AlphaTarget::unbiased) {
    const auto residuals =
        collect_residuals(layer, options.per_head, options.key, {{fallback}, tuned}, options.alpha);
    candidates.push_back(
        {"default table, fitted alpha",
         with_alphas({fallback}, fit_alphas(options.alpha, residuals[0], layer.info.head_dim))});
    tuned = with_alphas(tuned, fit_alphas(options.alpha, residuals[1], layer.info.head_dim));
  }
  candidates.push_back({"tuned", tuned});
  return candidates;
}

std::vector<CandidateTables<Codebook>> value_candidates(const CalibrationOptions& options, int head_dim,
                                                        const std::vector<CoordinateHistogram>& histograms) {
  std::vector<Codebook> tuned;
  for (const CoordinateHistogram& histogram : histograms)
    tuned.push_back(fit_codebook(histogram, options.value.bits));
  return {{"default", {default_value_table(options.value, head_dim)}}, {"tuned", tuned}};
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
                             layer.queries, std::move(contenders), 2);
  layer.stream.for_each([&](const TokenBlock& block) {
    evaluation.add(block, layer.held_out(block) ? kHeldOut : kFit);
    layer.progress(block.count);
  });
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

}  // namespace

std::size_t calibration_work(const CaptureInfo& info, const CalibrationOptions& options) {
  const std::size_t passes =
      options.key.mode == KeyMode::prod && options.alpha != AlphaTarget::unbiased ? 3 : 2;
  return passes * info.tokens * info.layers.size();
}

Artefact calibrate(CaptureReader& capture, const CalibrationOptions& options, const Progress& progress) {
  const CaptureInfo& info = capture.info();
  const TokenSplit split(options.holdout, info.tokens);
  Artefact artefact;
  artefact.num_q_heads = info.num_q_heads;
  artefact.key_basis = info.key_basis;
  artefact.softmax_scale = info.softmax_scale;
  artefact.provenance.model = info.model;
  artefact.provenance.fit_tokens = static_cast<std::int64_t>(split.fit_tokens());
  artefact.provenance.held_out_tokens = static_cast<std::int64_t>(split.held_out_tokens());

  for (int index = 0; index < info.num_layers; ++index) {
    const LayerInfo& shape = info.layers[static_cast<std::size_t>(index)];
    validate(options.key, shape.head_dim);
    validate(options.value, shape.head_dim);
    const bool prod = options.key.mode == KeyMode::prod;
    const auto rotation =
        artefact.rotations
            .try_emplace(shape.head_dim, Rotation::make(options.rotation, shape.head_dim, options.seed))
            .first;
    if (prod) {
      artefact.sketches.try_emplace(shape.head_dim,
                                    Sketch::make(options.key.sketch, shape.head_dim, options.seed));
    }
    LayerContext layer(capture, index, &split, std::make_shared<Rotation>(rotation->second),
                       prod ? std::make_shared<Sketch>(artefact.sketches.at(shape.head_dim)) : nullptr,
                       progress);
    if (prod && options.alpha == AlphaTarget::score && layer.queries.positions_count == 0) {
      throw UsageError(
          "--alpha score needs captured post-RoPE queries, and layer {} has none; use --alpha mse or cos",
          index);
    }
    LayerArtefact result;
    result.head_dim = shape.head_dim;
    result.num_kv_heads = info.num_kv_heads;
    result.key = options.key;
    result.value = options.value;
    const bool fit_values = shape.has_v && options.value.mode == ValueMode::rotated;
    const LayerHistograms histograms = collect_histograms(layer, options.per_head, shape.has_k, fit_values);
    std::vector<CandidateTables<KeyTables>> keys;
    std::vector<CandidateTables<Codebook>> values;
    if (shape.has_k) keys = key_candidates(layer, options, histograms.keys);
    if (fit_values) values = value_candidates(options, shape.head_dim, histograms.values);
    judge(layer, options, keys, values, result);
    if (shape.has_k) {
      result.key_tables = keys[static_cast<std::size_t>(result.key_gate.kept)].tables;
    } else if (shape.has_k_residual) {
      calibrate_from_residuals(capture, layer, options, result);
    } else {
      throw InputError("{}: layer {} has neither k nor k_residual; there is nothing to calibrate keys on",
                       capture.path(), index);
    }
    if (fit_values) {
      result.value_tables = values[static_cast<std::size_t>(result.value_gate.kept)].tables;
    } else if (options.value.mode == ValueMode::rotated) {
      result.value_tables = {default_value_table(options.value, shape.head_dim)};
    }
    artefact.layers.push_back(std::move(result));
  }
  return artefact;
}

}  // namespace tq
