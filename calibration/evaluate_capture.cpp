#include "calibration/evaluate_capture.h"

#include <cmath>
#include <map>
#include <optional>

#include "calibration/channel_equalisation.h"
#include "calibration/fit_alpha.h"
#include "calibration/layer_statistics.h"
#include "core/error.h"
#include "core/value_codec.h"

namespace tq {
namespace {

// How one layer's cache is stored. Tables: one entry, or one a KV head; none for group values.
struct LayerCodec {
  std::optional<KeyConfig> key;  // neither this nor a storage: keys stay exact
  std::vector<KeyTables> key_tables;
  std::optional<ValueConfig> value;
  std::vector<Codebook> value_tables;
  std::optional<StorageConfig> key_storage = std::nullopt, value_storage = std::nullopt;
  bool equalise_values = false;
};

// One list a KV head; `values` holds the codec of all heads.
void equalise(LayerContext& layer, std::vector<std::shared_ptr<const ValueBackend>>& values) {
  const std::shared_ptr<const ValueBackend> codec = values.at(0);
  values.clear();
  for (auto& scales : fit_channel_scales(layer.stream, layer.num_kv_heads, layer.info.head_dim)) {
    values.push_back(equalised_values(codec, std::move(scales)));
  }
}

double mean_alpha(const std::vector<KeyTables>& heads) {
  double sum = 0;
  for (const KeyTables& tables : heads) sum += tables.qjl_scale;
  return sum / static_cast<double>(heads.size());
}

LayerReport evaluate_layer(LayerContext& layer, const LayerCodec& codec, const CacheBackend& backend,
                           const CachePolicy& policy = kQuantiseAll) {
  LayerReport report;
  report.layer = layer.layer;
  report.head_dim = layer.info.head_dim;
  Contender contender;
  contender.measure_output = layer.info.has_v;
  const auto count_bytes = [&](const auto& stored) {
    report.bytes_per_token += layer.num_kv_heads * bytes_per_token(stored, layer.info.head_dim);
    report.fp16_bytes_per_token += layer.num_kv_heads * 2 * layer.info.head_dim;
  };
  if (layer.info.has_k && codec.key_storage) {
    contender.keys.push_back(storage_keys(*codec.key_storage, layer.info.head_dim, layer.rotation));
    report.key = describe(*codec.key_storage);
    count_bytes(*codec.key_storage);
  }
  if (layer.info.has_v && codec.value_storage) {
    contender.values.push_back(storage_values(*codec.value_storage, layer.info.head_dim, layer.rotation));
    report.value = describe(*codec.value_storage);
    count_bytes(*codec.value_storage);
  }
  if (layer.info.has_k && codec.key) {
    for (const KeyTables& tables : codec.key_tables) {
      contender.keys.push_back(backend.keys(*codec.key, layer.rotation, layer.sketch, tables));
    }
    report.key = describe(*codec.key);
    if (codec.key->mode == KeyMode::prod) report.alpha = mean_alpha(codec.key_tables);
    count_bytes(*codec.key);
  }
  if (layer.info.has_v && codec.value) {
    // Group values have no table: one codec serves all heads.
    const std::vector<Codebook> none{Codebook()};
    for (const Codebook& table : codec.value_tables.empty() ? none : codec.value_tables) {
      contender.values.push_back(backend.values(*codec.value, layer.info.head_dim, layer.rotation, table));
    }
    if (codec.equalise_values) equalise(layer, contender.values);
    report.value = describe(*codec.value);
    count_bytes(*codec.value);
  }
  CodecClock key_clock, value_clock;
  for (auto& keys : contender.keys) keys = timed(std::move(keys), key_clock);
  for (auto& values : contender.values) values = timed(std::move(values), value_clock);
  LayerEvaluation evaluation(layer.info.head_dim, layer.num_kv_heads, layer.num_q_heads, layer.softmax_scale,
                             layer.queries, {std::move(contender)}, 1, policy);
  layer.stream.for_each([&](const TokenBlock& block) {
    evaluation.add(block, 0);
    layer.progress(block.count);
  });
  report.metrics = evaluation.metrics(0, 0);
  report.standard_errors = evaluation.standard_errors(0, 0);
  report.key_times = key_clock.total();
  report.value_times = value_clock.total();
  return report;
}

// Means over the layers that have the metric.
LayerReport overall(const std::vector<LayerReport>& layers) {
  LayerReport report;
  report.layer = -1;
  const auto mean = [&](std::optional<double> LayerMetrics::*field) {
    double sum = 0, variance = 0;
    int count = 0;
    bool errors = true;
    for (const LayerReport& layer : layers) {
      if (!(layer.metrics.*field)) continue;
      sum += *(layer.metrics.*field);
      ++count;
      const std::optional<double>& error = layer.standard_errors.*field;
      errors = errors && error;
      variance += error ? *error * *error : 0;
    }
    if (count == 0) return;
    report.metrics.*field = sum / count;
    if (errors) report.standard_errors.*field = std::sqrt(variance) / count;
  };
  for (const auto field :
       {&LayerMetrics::key_relative_mse, &LayerMetrics::key_cosine, &LayerMetrics::value_relative_mse,
        &LayerMetrics::value_cosine, &LayerMetrics::inner_product_bias, &LayerMetrics::inner_product_error,
        &LayerMetrics::inner_product_variance, &LayerMetrics::softmax_kl, &LayerMetrics::top1_agreement,
        &LayerMetrics::output_error}) {
    mean(field);
  }
  double alphas = 0;
  int with_alpha = 0;
  for (const LayerReport& layer : layers) {
    report.bytes_per_token += layer.bytes_per_token;
    report.fp16_bytes_per_token += layer.fp16_bytes_per_token;
    report.key_times.add(layer.key_times);
    report.value_times.add(layer.value_times);
    alphas += layer.alpha.value_or(0);
    with_alpha += layer.alpha ? 1 : 0;
  }
  if (with_alpha > 0) report.alpha = alphas / with_alpha;
  return report;
}

CaptureReport finish(std::vector<LayerReport> layers) {
  CaptureReport report;
  report.overall = overall(layers);
  report.layers = std::move(layers);
  return report;
}

}  // namespace

CaptureReport evaluate_layers(int num_layers, const std::function<LayerContext(int index)>& open,
                              const CodecOptions& options, const CacheBackend& backend) {
  const bool code_keys = options.quantise_keys && !options.key_storage;
  const bool code_values = options.quantise_values && !options.value_storage;
  const bool sketched = code_keys && options.key.mode == KeyMode::prod;
  const auto rotates = [](const std::optional<StorageConfig>& storage) {
    return storage && storage->codec->rotates();
  };
  const bool rotated = code_keys || (code_values && options.value.mode == ValueMode::rotated) ||
                       rotates(options.key_storage) || rotates(options.value_storage);
  std::map<int, std::shared_ptr<const Rotation>> rotations;
  std::map<int, std::shared_ptr<const Sketch>> sketches;
  std::size_t rotation_bytes = 0, sketch_bytes = 0, equalisation_bytes = 0;
  std::vector<LayerReport> layers;
  for (int index = 0; index < num_layers; ++index) {
    LayerContext layer = open(index);
    const int d = layer.info.head_dim;
    if (code_keys) validate(options.key, d);
    if (code_values) validate(options.value, d);
    if (rotated && !rotations.contains(d)) {
      rotations[d] = std::make_shared<Rotation>(Rotation::make(options.rotation, d, options.seed));
      rotation_bytes += rotations[d]->stored_bytes();
    }
    if (sketched && !sketches.contains(d)) {
      sketches[d] = std::make_shared<Sketch>(Sketch::make(options.key.sketch, d, options.seed));
      sketch_bytes += sketches[d]->stored_bytes();
    }
    layer.rotation = rotations[d];
    layer.sketch = sketches[d];
    LayerCodec codec;
    if (options.quantise_keys) codec.key_storage = options.key_storage;
    if (options.quantise_values) codec.value_storage = options.value_storage;
    if (code_keys) {
      codec.key = options.key;
      KeyTables tables = default_key_tables(options.key, d);
      if (sketched && options.fixed_alpha) {
        tables.qjl_scale = *options.fixed_alpha;
      } else if (layer.info.has_k && sketched && options.alpha != AlphaTarget::unbiased) {
        if (options.alpha == AlphaTarget::score && layer.queries.positions_count == 0) {
          throw UsageError("--alpha score needs captured post-RoPE queries, and layer {} has none", index);
        }
        const auto residuals = collect_residuals(layer, false, options.key, {{tables}}, options.alpha);
        tables.qjl_scale = fit_alpha(options.alpha, residuals[0][0], d, layer.where);
      }
      codec.key_tables = {tables};
    }
    if (code_values) {
      codec.value = options.value;
      const Codebook table = default_value_table(options.value, d);
      if (table.bits > 0) codec.value_tables = {table};
      codec.equalise_values = options.equalise_values && options.value.mode == ValueMode::group;
      if (codec.equalise_values && layer.info.has_v) {
        equalisation_bytes += layer.kv_heads() * layer.head_dim() * sizeof(std::uint16_t);
      }
    }
    layers.push_back(evaluate_layer(layer, codec, backend));
  }
  CaptureReport report = finish(std::move(layers));
  report.rotation_bytes = rotation_bytes;
  report.sketch_bytes = sketch_bytes;
  report.equalisation_bytes = equalisation_bytes;
  return report;
}

CaptureReport evaluate_capture(CaptureReader& capture, const CodecOptions& options, const Progress& progress,
                               const CacheBackend& backend) {
  return evaluate_layers(
      capture.info().num_layers,
      [&](int index) { return LayerContext(capture, index, nullptr, nullptr, nullptr, progress); }, options,
      backend);
}

CaptureReport evaluate_capture(CaptureReader& capture, const Artefact& artefact, const Progress& progress,
                               const CacheBackend& backend) {
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
    layers.push_back(evaluate_layer(layer, {from.key, from.key_tables, from.value, from.value_tables},
                                    backend, artefact.policy.value_or(kQuantiseAll)));
  }
  CaptureReport report = finish(std::move(layers));
  for (const auto& [d, rotation] : artefact.rotations) report.rotation_bytes += rotation.stored_bytes();
  for (const auto& [d, sketch] : artefact.sketches) report.sketch_bytes += sketch.stored_bytes();
  return report;
}

}  // namespace tq
