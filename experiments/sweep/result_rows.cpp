#include "experiments/sweep/result_rows.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <set>

#include "core/error.h"
#include "experiments/sweep/axes.h"
#include "experiments/sweep/result_log.h"

namespace tq {
namespace {

using Json = nlohmann::ordered_json;

class LineReader {
 public:
  LineReader(std::string place, const Json& line) : place_(std::move(place)), line_(line) {}

  ResultRow row() const {
    ResultRow row;
    row.key = line_["key"].get<std::string>();
    row.configuration = object(line_, "configuration");
    for (const auto& [axis, value] : row.configuration.items()) {
      require(value.is_string() || value.is_number(), "configuration." + axis);
    }
    if (line_.contains("capture_sha256")) {
      require(line_["capture_sha256"].is_string(), "capture_sha256");
      row.capture_sha256 = line_["capture_sha256"].get<std::string>();
    }
    add_values(row.values, line_);
    for (const char* name : {"bytes_per_token", "padded_bytes_per_token", "compression", "padded_compression",
                             "rotation_bytes", "sketch_bytes", "equalisation_bytes", "alpha"}) {
      require(!line_.contains(name) || row.values.contains(name), name);
    }
    if (line_.contains("pass")) {
      require(line_["pass"].is_boolean(), "pass");
      row.values["pass"] = {line_["pass"].get<bool>() ? 1.0 : 0.0, std::nullopt};
    }
    if (line_.contains("layers")) add_layers(row);
    return row;
  }

 private:
  void require(bool holds, const std::string& name) const {
    if (!holds) throw InputError("{}: '{}' is not what a sweep writes", place_, name);
  }

  static bool is_finite(const Json& value) { return value.is_number() && std::isfinite(value.get<double>()); }

  const Json& object(const Json& parent, const char* name) const {
    require(parent.contains(name) && parent[name].is_object(), name);
    return parent[name];
  }

  // The metrics of a line or of one of its layers, and the numbers beside them.
  void add_values(ResultValues& values, const Json& parent) const {
    for (const auto& [name, metric] : object(parent, "metrics").items()) add_metric(values, name, metric);
    for (const auto& [name, value] : parent.items()) {
      if (!value.is_number()) continue;
      require(is_finite(value), name);
      values[name] = {value.get<double>(), std::nullopt};
    }
  }

  void add_layers(ResultRow& row) const {
    require(line_["layers"].is_array(), "layers");
    for (const Json& entry : line_["layers"]) {
      require(entry.is_object() && entry.contains("layer") && entry["layer"].is_number_integer(), "layers");
      LayerValues& layer = row.layers.emplace_back(LayerValues{entry["layer"].get<int>(), {}});
      add_values(layer.values, entry);
      layer.values.erase("layer");
    }
  }

  // {"mean", "half_width"}, or a number; NaN is written as null.
  void add_metric(ResultValues& values, const std::string& name, const Json& metric) const {
    const bool plain = !metric.is_object();
    if (!plain) require(metric.contains("mean") && metric.contains("half_width"), name);
    const Json& mean = plain ? metric : metric["mean"];
    if (mean.is_null()) return;
    require(is_finite(mean), name);
    Estimate estimate{mean.get<double>(), std::nullopt};
    if (!plain && !metric["half_width"].is_null()) {
      require(is_finite(metric["half_width"]) && metric["half_width"].get<double>() >= 0, name);
      estimate.half_width = metric["half_width"].get<double>();
    }
    values[name] = estimate;
  }

  std::string place_;
  const Json& line_;
};

std::string text(const Json& value) { return value.is_string() ? value.get<std::string>() : value.dump(); }

// By axis, numbers as numbers.
bool is_before(const ResultRow& a, const ResultRow& b) {
  for (const AxisInfo& axis : axes()) {
    const auto left = a.configuration.find(axis.name), right = b.configuration.find(axis.name);
    const bool has_left = left != a.configuration.end(), has_right = right != b.configuration.end();
    if (has_left != has_right) return has_right;
    if (has_left && *left != *right) return *left < *right;
  }
  return a.key < b.key;
}

}  // namespace

const std::vector<MetricInfo>& result_metrics() {
  static const std::vector<MetricInfo> list{
      {"key_relative_mse", "relative MSE of keys", Better::lower},
      {"key_cosine", "cosine of keys", Better::higher},
      {"inner_product_bias", "bias of <q,k>", Better::nearer_zero},
      {"inner_product_variance", "variance of <q,k>", Better::lower},
      {"inner_product_error", "error of <q,k>", Better::lower},
      {"softmax_kl", "softmax KL", Better::lower},
      {"top1_agreement", "top-1 agreement", Better::higher},
      {"value_relative_mse", "relative MSE of values", Better::lower},
      {"value_cosine", "cosine of values", Better::higher},
      {"output_error", "relative error of the attention output", Better::lower},
      {"max_error", "largest error of the output", Better::lower},
      {"relative_error", "relative error of the output", Better::lower},
      {"cosine", "cosine of the output", Better::higher},
      {"lse_error", "error of log-sum-exp", Better::lower},
      {"pass", "passes", Better::higher},
      {"nats_increase", "increase of the loss in nats a token", Better::lower},
      {"prediction_kl", "KL of the next-token distribution", Better::lower},
      {"prediction_top1", "top-1 agreement of the next token", Better::higher},
      {"nats", "loss in nats a token", Better::lower},
      {"fp16_nats", "loss in nats a token, FP16 cache", Better::lower},
      {"far_nats_increase", "increase of the loss where codes are seen", Better::lower},
      {"far_prediction_kl", "KL of the next token where codes are seen", Better::lower},
      {"far_prediction_top1", "top-1 agreement where codes are seen", Better::higher},
      {"max_tokens", "largest context in tokens", Better::higher},
      {"padded_max_tokens", "largest context in tokens, padded", Better::higher},
      {"fp16_max_tokens", "largest context in tokens, FP16", Better::higher},
      {"rotation_bytes", "bytes of the rotation", Better::lower},
      {"sketch_bytes", "bytes of the sketch", Better::lower},
      {"equalisation_bytes", "bytes of the channels' scales", Better::lower},
      {"alpha", "alpha", Better::unknown},
      {"bytes_per_token", "bytes a token", Better::lower},
      {"padded_bytes_per_token", "padded bytes a token", Better::lower},
      {"compression", "compression against FP16", Better::higher},
      {"padded_compression", "padded compression against FP16", Better::higher},
  };
  return list;
}

MetricInfo result_metric(std::string_view key) {
  for (const MetricInfo& metric : result_metrics()) {
    if (metric.key == key) return metric;
  }
  return {std::string(key), std::string(key), Better::unknown};
}

std::string ResultRow::axis(std::string_view name) const {
  const auto found = configuration.find(std::string(name));
  return found == configuration.end() ? "" : text(*found);
}

std::vector<ResultRow> read_result_rows(const std::string& folder) {
  namespace fs = std::filesystem;
  const std::string path = (fs::path(folder) / kResultsFile).string();
  std::error_code error;
  if (!fs::is_regular_file(path, error)) {
    throw UsageError("{}: holds no sweep ({} is missing)", folder, kResultsFile);
  }
  std::vector<ResultRow> rows;
  for (const auto& [key, line] : read_results(folder)) {
    const Json json = Json::parse(line);
    rows.push_back(LineReader(fmt::format("{}: result {}", path, key.substr(0, 12)), json).row());
  }
  std::sort(rows.begin(), rows.end(), is_before);
  return rows;
}

std::vector<std::string> varying_axes(const std::vector<const ResultRow*>& rows) {
  std::vector<std::string> varying;
  for (const AxisInfo& axis : axes()) {
    std::set<std::string> values;
    for (const ResultRow* row : rows) values.insert(row->axis(axis.name));
    if (values.size() > 1) varying.emplace_back(axis.name);
  }
  return varying;
}

}  // namespace tq
