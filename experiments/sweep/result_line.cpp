#include "experiments/sweep/result_line.h"

#include "experiments/sweep/head_bytes.h"
#include "experiments/sweep/metric_columns.h"

namespace tq {
namespace {

using Json = nlohmann::ordered_json;

Json metrics_json(const LayerReport& report) {
  Json metrics = Json::object();
  for (const MetricColumn& column : kMetricColumns) {
    const std::optional<double>& mean = report.metrics.*column.field;
    if (!mean) continue;
    const std::optional<double>& error = report.standard_errors.*column.field;
    metrics[column.key] = {{"mean", *mean},
                           {"half_width", error ? Json(kHalfWidth * *error) : Json(nullptr)}};
  }
  return metrics;
}

}  // namespace

std::string result_line(const Configuration& configuration, const CaptureReport& report) {
  int padded = report.overall.bytes_per_token;
  for (const LayerReport& layer : report.layers) {
    if (!layer.key.empty() && !configuration.codec.key_storage)
      padded += configuration.num_kv_heads * padding_bytes(configuration.codec.key, layer.head_dim);
  }
  Json line;
  line["key"] = configuration.key;
  line["configuration"] = to_json(configuration.point);
  if (!configuration.capture_sha256.empty()) line["capture_sha256"] = configuration.capture_sha256;
  const LayerReport& overall = report.overall;
  line["bytes_per_token"] = overall.bytes_per_token;
  line["padded_bytes_per_token"] = padded;
  line["fp16_bytes_per_token"] = overall.fp16_bytes_per_token;
  line["compression"] = compression(overall.fp16_bytes_per_token, overall.bytes_per_token);
  line["padded_compression"] = compression(overall.fp16_bytes_per_token, padded);
  for (const auto& [name, bytes] :
       {std::pair("rotation_bytes", report.rotation_bytes), std::pair("sketch_bytes", report.sketch_bytes),
        std::pair("equalisation_bytes", report.equalisation_bytes)}) {
    if (bytes > 0) line[name] = bytes;
  }
  if (overall.alpha) line["alpha"] = *overall.alpha;
  line["metrics"] = metrics_json(overall);
  if (configuration.data.capture) {
    Json layers = Json::array();
    for (const LayerReport& layer : report.layers) {
      Json entry{
          {"layer", layer.layer}, {"head_dim", layer.head_dim}, {"bytes_per_token", layer.bytes_per_token}};
      if (layer.alpha) entry["alpha"] = *layer.alpha;
      entry["metrics"] = metrics_json(layer);
      layers.push_back(std::move(entry));
    }
    line["layers"] = layers;
  }
  return line.dump();
}

}  // namespace tq
