#include "experiments/report_output.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "experiments/table.h"

namespace tq {
namespace {

using Json = nlohmann::ordered_json;

struct Column {
  const char* key;
  const char* title;
  const char* format;
  std::optional<double> LayerMetrics::*field;
};

constexpr std::array<Column, 9> kColumns{{
    {"key_relative_mse", "key MSE", "{:.5f}", &LayerMetrics::key_relative_mse},
    {"key_cosine", "key cos", "{:.5f}", &LayerMetrics::key_cosine},
    {"inner_product_bias", "<q,k> bias", "{:+.4f}", &LayerMetrics::inner_product_bias},
    {"inner_product_error", "<q,k> err", "{:.4f}", &LayerMetrics::inner_product_error},
    {"softmax_kl", "softmax KL", "{:.5f}", &LayerMetrics::softmax_kl},
    {"top1_agreement", "top-1", "{:.4f}", &LayerMetrics::top1_agreement},
    {"value_relative_mse", "value MSE", "{:.5f}", &LayerMetrics::value_relative_mse},
    {"value_cosine", "value cos", "{:.5f}", &LayerMetrics::value_cosine},
    {"output_error", "output err", "{:.5f}", &LayerMetrics::output_error},
}};

Json number_or_null(const std::optional<double>& value) { return value ? Json(*value) : Json(nullptr); }

std::string codec_name(const std::string& described) { return described.empty() ? "-" : described; }

bool same_codecs(const CaptureReport& report) {
  return std::all_of(report.layers.begin(), report.layers.end(), [&](const LayerReport& layer) {
    return layer.key == report.layers.front().key && layer.value == report.layers.front().value;
  });
}

std::vector<std::string> report_row(std::vector<std::string> cells, const LayerReport& layer) {
  for (const Column& column : kColumns) {
    const std::optional<double>& value = layer.metrics.*column.field;
    cells.push_back(value ? fmt::format(fmt::runtime(column.format), *value) : "-");
  }
  cells.push_back(fmt::format("{}", layer.bytes_per_token));
  cells.push_back(
      layer.bytes_per_token > 0
          ? fmt::format("{:.2f}x", static_cast<double>(layer.fp16_bytes_per_token) / layer.bytes_per_token)
          : "-");
  return cells;
}

Json report_entry(const LayerReport& layer) {
  Json entry;
  if (layer.layer >= 0) {
    entry["layer"] = layer.layer;
    entry["head_dim"] = layer.head_dim;
    entry["key"] = layer.key;
    entry["value"] = layer.value;
  }
  for (const Column& column : kColumns) entry[column.key] = number_or_null(layer.metrics.*column.field);
  entry["bytes_per_token"] = layer.bytes_per_token;
  entry["fp16_bytes_per_token"] = layer.fp16_bytes_per_token;
  return entry;
}

Json metrics_json(const TableMetrics& metrics) {
  return {{"relative_mse", metrics.relative_mse},
          {"cosine", metrics.cosine},
          {"softmax_kl", number_or_null(metrics.softmax_kl)},
          {"top1_agreement", number_or_null(metrics.top1_agreement)},
          {"output_error", number_or_null(metrics.output_error)}};
}

Json gate_entry(const GateRecord& gate) {
  Json candidates = Json::array();
  for (const Candidate& candidate : gate.candidates) {
    candidates.push_back({{"name", candidate.name},
                          {"fit", metrics_json(candidate.fit)},
                          {"held_out", metrics_json(candidate.held_out)}});
  }
  return {{"candidates", candidates},
          {"kept", gate.candidates.empty() ? Json(nullptr)
                                           : Json(gate.candidates[static_cast<std::size_t>(gate.kept)].name)},
          {"reason", gate.reason}};
}

}  // namespace

std::string report_table(const CaptureReport& report) {
  const bool same = same_codecs(report);
  std::vector<std::string> header{"layer"};
  if (!same) header.insert(header.end(), {"keys", "values"});
  for (const Column& column : kColumns) header.emplace_back(column.title);
  header.insert(header.end(), {"bytes/token", "vs FP16"});
  Table table(header);
  for (const LayerReport& layer : report.layers) {
    std::vector<std::string> cells{fmt::format("{}", layer.layer)};
    if (!same) cells.insert(cells.end(), {codec_name(layer.key), codec_name(layer.value)});
    table.row(report_row(std::move(cells), layer));
  }
  table.rule();
  table.row(report_row(same ? std::vector<std::string>{"all"} : std::vector<std::string>{"all", "", ""},
                       report.overall));
  const LayerReport& first = report.layers.front();
  const std::string codecs =
      same ? fmt::format("keys {}, values {}", codec_name(first.key), codec_name(first.value))
           : std::string("codecs by layer");
  return codecs + "\n\n" + table.text();
}

Json report_json(const CaptureReport& report) {
  Json layers = Json::array();
  for (const LayerReport& layer : report.layers) layers.push_back(report_entry(layer));
  return {{"layers", layers}, {"overall", report_entry(report.overall)}};
}

std::string gate_table(const Artefact& artefact) {
  Table table({"layer", "side", "kept", "alpha", "why"});
  for (std::size_t i = 0; i < artefact.layers.size(); ++i) {
    const LayerArtefact& layer = artefact.layers[i];
    const auto kept = [](const GateRecord& gate) {
      return gate.candidates.empty() ? std::string("default")
                                     : gate.candidates[static_cast<std::size_t>(gate.kept)].name;
    };
    std::string alphas;
    if (layer.key.mode == KeyMode::prod) {
      for (const KeyTables& tables : layer.key_tables) {
        alphas += fmt::format("{}{:.4f}", alphas.empty() ? "" : " ", tables.qjl_scale);
      }
    }
    table.row({fmt::format("{}", i), "keys", kept(layer.key_gate), alphas, layer.key_gate.reason});
    if (!layer.value_gate.candidates.empty()) {
      table.row({fmt::format("{}", i), "values", kept(layer.value_gate), "", layer.value_gate.reason});
    }
  }
  return table.text();
}

Json gate_json(const Artefact& artefact) {
  Json layers = Json::array();
  for (std::size_t i = 0; i < artefact.layers.size(); ++i) {
    const LayerArtefact& layer = artefact.layers[i];
    Json alphas = Json::array();
    for (const KeyTables& tables : layer.key_tables) alphas.push_back(tables.qjl_scale);
    Json entry{{"layer", i}, {"key", describe(layer.key)}, {"value", describe(layer.value)}};
    if (layer.key.mode == KeyMode::prod) entry["alpha"] = alphas;
    entry["key_gate"] = gate_entry(layer.key_gate);
    entry["value_gate"] = gate_entry(layer.value_gate);
    layers.push_back(entry);
  }
  return {{"layers", layers},
          {"fit_tokens", artefact.provenance.fit_tokens},
          {"held_out_tokens", artefact.provenance.held_out_tokens}};
}

void print_calibration(const Artefact& artefact, const std::string& out, bool json) {
  if (json) {
    fmt::print("{}\n", gate_json(artefact).dump(2));
  } else {
    fmt::print("{}\nwrote {} (fitted on {} tokens, judged on {})\n", gate_table(artefact), out,
               artefact.provenance.fit_tokens, artefact.provenance.held_out_tokens);
  }
}

}  // namespace tq
