#include "calibration/evaluate_capture.h"

#include <algorithm>
#include <map>

#include "calibration/fit_alpha.h"
#include "calibration/layer_statistics.h"
#include "core/error.h"

namespace tq {
namespace {

LayerReport evaluate_layer(LayerContext& layer, const KeyConfig& key,
                           const std::vector<KeyTables>& key_tables, const ValueConfig& value,
                           const std::vector<Codebook>& value_tables) {
  LayerReport report;
  report.layer = layer.layer;
  report.head_dim = layer.info.head_dim;
  Contender contender;
  if (layer.info.has_k) {
    for (const KeyTables& tables : key_tables) {
      contender.keys.push_back(std::make_shared<KeyCodec>(key, layer.rotation, layer.sketch, tables));
    }
    report.key = describe(key);
    report.bytes_per_token += layer.num_kv_heads * bytes_per_token(key, layer.info.head_dim);
    report.fp16_bytes_per_token += layer.num_kv_heads * 2 * layer.info.head_dim;
  }
  if (layer.info.has_v) {
    // Group values have no table: one codec serves all heads.
    for (std::size_t i = 0; i < std::max<std::size_t>(1, value_tables.size()); ++i) {
      contender.values.push_back(std::make_shared<ValueCodec>(
          value, layer.info.head_dim, layer.rotation, value_tables.empty() ? Codebook() : value_tables[i]));
    }
    report.value = describe(value);
    report.bytes_per_token += layer.num_kv_heads * bytes_per_token(value, layer.info.head_dim);
    report.fp16_bytes_per_token += layer.num_kv_heads * 2 * layer.info.head_dim;
  }
  LayerEvaluation evaluation(layer.info.head_dim, layer.num_kv_heads, layer.num_q_heads, layer.softmax_scale,
                             layer.queries, {std::move(contender)}, 1);
  layer.stream.for_each([&](const TokenBlock& block) {
    evaluation.add(block, 0);
    layer.progress(block.count);
  });
  report.metrics = evaluation.metrics(0, 0);
  return report;
}

// Means over the layers that have the metric.
LayerReport overall(const std::vector<LayerReport>& layers) {
  LayerReport report;
  report.layer = -1;
  const auto mean = [&](std::optional<double> LayerMetrics::*field) {
    double sum = 0;
    int count = 0;
    for (const LayerReport& layer : layers) {
      if (!(layer.metrics.*field)) continue;
      sum += *(layer.metrics.*field);
      ++count;
    }
    if (count > 0) report.metrics.*field = sum / count;
  };
  for (const auto field :
       {&LayerMetrics::key_relative_mse, &LayerMetrics::key_cosine, &LayerMetrics::value_relative_mse,
        &LayerMetrics::value_cosine, &LayerMetrics::inner_product_bias, &LayerMetrics::inner_product_error,
        &LayerMetrics::softmax_kl, &LayerMetrics::top1_agreement, &LayerMetrics::output_error}) {
    mean(field);
  }
  for (const LayerReport& layer : layers) {
    report.bytes_per_token += layer.bytes_per_token;
    report.fp16_bytes_per_token += layer.fp16_bytes_per_token;
  }
  return report;
}

CaptureReport finish(std::vector<LayerReport> layers) {
  CaptureReport report;
  report.overall = overall(layers);
  report.layers = std::move(layers);
  return report;
}

}  // namespace

CaptureReport evaluate_capture(CaptureReader& capture, const CodecOptions& options,
                               const Progress& progress) {
  std::map<int, std::shared_ptr<const Rotation>> rotations;
  std::map<int, std::shared_ptr<const Sketch>> sketches;
  std::vector<LayerReport> layers;
  for (int index = 0; index < capture.info().num_layers; ++index) {
    const int d = capture.info().layers[static_cast<std::size_t>(index)].head_dim;
    validate(options.key, d);
    validate(options.value, d);
    if (!rotations.contains(d)) {
      rotations[d] = std::make_shared<Rotation>(Rotation::make(options.rotation, d, options.seed));
      if (options.key.mode == KeyMode::prod) {
        sketches[d] = std::make_shared<Sketch>(Sketch::make(options.key.sketch, d, options.seed));
      }
    }
    LayerContext layer(capture, index, nullptr, rotations[d],
                       options.key.mode == KeyMode::prod ? sketches[d] : nullptr, progress);
    KeyTables tables = default_key_tables(options.key, d);
    if (layer.info.has_k && options.key.mode == KeyMode::prod && options.alpha != AlphaTarget::unbiased) {
      if (options.alpha == AlphaTarget::score && layer.queries.positions_count == 0) {
        throw UsageError("--alpha score needs captured post-RoPE queries, and layer {} has none", index);
      }
      const auto residuals = collect_residuals(layer, false, options.key, {{tables}}, options.alpha);
      tables.qjl_scale = fit_alpha(options.alpha, residuals[0][0], d);
    }
    const Codebook value_table = default_value_table(options.value, d);
    layers.push_back(
        evaluate_layer(layer, options.key, {tables}, options.value,
                       value_table.bits > 0 ? std::vector<Codebook>{value_table} : std::vector<Codebook>{}));
  }
  return finish(std::move(layers));
}

CaptureReport evaluate_capture(CaptureReader& capture, const Artefact& artefact, const Progress& progress) {
  const CaptureInfo& info = capture.info();
  if (static_cast<int>(artefact.layers.size()) != info.num_layers) {
    throw InputError("{}: {} layers, but the artefact has {}; it was calibrated for another model",
                     capture.path(), info.num_layers, artefact.layers.size());
  }
  std::vector<LayerReport> layers;
  for (int index = 0; index < info.num_layers; ++index) {
    const LayerArtefact& from = artefact.layers[static_cast<std::size_t>(index)];
    const int d = info.layers[static_cast<std::size_t>(index)].head_dim;
    if (from.head_dim != d || from.num_kv_heads != info.num_kv_heads) {
      throw InputError("{}: layer {} has {} KV heads of dimension {}, but the artefact's has {} of {}",
                       capture.path(), index, info.num_kv_heads, d, from.num_kv_heads, from.head_dim);
    }
    LayerContext layer(
        capture, index, nullptr, std::make_shared<Rotation>(artefact.rotations.at(d)),
        from.key.mode == KeyMode::prod ? std::make_shared<Sketch>(artefact.sketches.at(d)) : nullptr,
        progress);
    layers.push_back(evaluate_layer(layer, from.key, from.key_tables, from.value, from.value_tables));
  }
  return finish(std::move(layers));
}

}  // namespace tq
