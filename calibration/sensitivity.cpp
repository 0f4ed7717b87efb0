#include "calibration/sensitivity.h"

#include <deque>

#include "core/error.h"

namespace tq {

std::vector<std::vector<CandidateMetrics>> measure_contenders(LayerContext& layer,
                                                              const std::vector<Contender>& contenders,
                                                              const std::vector<LayerQueries>& queries,
                                                              const CachePolicy& policy) {
  std::deque<LayerEvaluation> evaluations;
  for (const LayerQueries& part : queries) {
    evaluations.emplace_back(layer.info.head_dim, layer.num_kv_heads, layer.num_q_heads, layer.softmax_scale,
                             part, contenders, 1, policy);
  }
  layer.stream.for_each([&](const TokenBlock& block) {
    for (LayerEvaluation& evaluation : evaluations) evaluation.add(block, 0);
    layer.progress(block.count);
  });
  std::vector<std::vector<CandidateMetrics>> results(contenders.size());
  for (std::size_t i = 0; i < contenders.size(); ++i) {
    for (const LayerEvaluation& evaluation : evaluations) {
      results[i].push_back({evaluation.metrics(i, 0), evaluation.standard_errors(i, 0)});
    }
  }
  return results;
}

std::vector<LayerSensitivity> measure_sensitivity(CandidateLayers& layers, const CachePolicy& policy) {
  std::vector<LayerSensitivity> results;
  for (int index = 0; index < layers.capture().info().num_layers; ++index) {
    CandidateLayer layer = layers.open(index);
    std::vector<Contender> contenders;
    for (const auto& codec : layer.keys) contenders.push_back({"", true, {codec}, {}});
    for (const auto& codec : layer.values) contenders.push_back({"", true, {}, {codec}});
    std::vector<std::vector<CandidateMetrics>> measured =
        measure_contenders(layer.context, contenders, layer.queries, policy);
    for (const CandidateMetrics& part : measured.front()) {
      if (part.metrics.output_error) continue;
      throw InputError("{}: layer {}: half of the captured queries, or all, see no captured token",
                       layers.capture().path(), index);
    }
    const auto first_value = measured.begin() + static_cast<std::ptrdiff_t>(layer.keys.size());
    results.push_back({.layer = index,
                       .head_dim = layer.context.info.head_dim,
                       .num_kv_heads = layer.context.num_kv_heads,
                       .key_tables = std::move(layer.key_tables),
                       .keys = {measured.begin(), first_value},
                       .values = {first_value, measured.end()}});
  }
  return results;
}

}  // namespace tq
