#include "experiments/sweep/perplexity_output.h"

#include <fmt/format.h>

#include <array>
#include <utility>
#include <vector>

#include "experiments/sweep/averaged_rows.h"
#include "experiments/sweep/head_bytes.h"
#include "experiments/sweep/result_line.h"
#include "experiments/table.h"

namespace tq {
namespace {

using Json = nlohmann::ordered_json;

Json metric(const WindowMean& mean) {
  return {{"mean", mean.mean},
          {"half_width", mean.standard_error ? Json(kHalfWidth * *mean.standard_error) : Json(nullptr)}};
}

constexpr std::array<std::pair<const char*, const char*>, 6> kColumns{{{"nats", "nats/token"},
                                                                       {"nats_increase", "increase"},
                                                                       {"prediction_kl", "KL"},
                                                                       {"prediction_top1", "top-1"},
                                                                       {"far_nats_increase", "increase, far"},
                                                                       {"far_prediction_kl", "KL, far"}}};

std::string cell(const nlohmann::json& metrics, const char* key) {
  if (!metrics.contains(key)) return "-";
  const nlohmann::json& found = metrics[key];
  Estimate estimate{found["mean"].get<double>(), std::nullopt};
  if (!found["half_width"].is_null()) estimate.half_width = found["half_width"].get<double>();
  return to_string(estimate, "+-");
}

}  // namespace

std::string perplexity_line(const Configuration& configuration, const PerplexityReport& report) {
  const PerplexityShape& shape = *configuration.perplexity;
  const HeadBytes bytes = head_bytes(configuration.codec, shape.head_dim);
  const int heads = shape.num_layers * shape.num_kv_heads;
  Json line;
  line["key"] = configuration.key;
  line["configuration"] = to_json(configuration.point);
  line["model_sha256"] = configuration.model_sha256;
  line["text_sha256"] = configuration.text_sha256;
  line["windows"] = report.windows;
  line["bytes_per_token"] = heads * bytes.stored;
  line["padded_bytes_per_token"] = heads * bytes.padded;
  line["fp16_bytes_per_token"] = heads * bytes.fp16;
  line["compression"] = compression(bytes.fp16, bytes.stored);
  line["padded_compression"] = compression(bytes.fp16, bytes.padded);
  Json metrics{{"nats_increase", metric(report.all.nats_increase)},
               {"prediction_kl", metric(report.all.kl)},
               {"prediction_top1", metric(report.all.top1_agreement)},
               {"nats", metric(report.all.nats)},
               {"fp16_nats", metric(report.all.baseline_nats)}};
  if (report.far) {
    metrics["far_nats_increase"] = metric(report.far->nats_increase);
    metrics["far_prediction_kl"] = metric(report.far->kl);
    metrics["far_prediction_top1"] = metric(report.far->top1_agreement);
  }
  line["metrics"] = metrics;
  return line.dump();
}

std::string perplexity_table(const SweepPlan& plan, const std::map<std::string, std::string>& lines) {
  std::vector<const Configuration*> rows;
  std::vector<const Point*> points;
  for (const Configuration& configuration : plan.configurations) {
    if (!configuration.perplexity) continue;
    rows.push_back(&configuration);
    points.push_back(&configuration.point);
  }
  if (rows.empty()) return "";
  const std::vector<Axis> varying = varying_axes(points);
  std::vector<std::string> header;
  for (const Axis axis : varying) header.emplace_back(info(axis).name);
  for (const auto& [key, title] : kColumns) header.emplace_back(title);
  header.insert(header.end(), {"bytes/token", "vs FP16"});
  Table table(header);
  for (const Configuration* row : rows) {
    const nlohmann::json line = nlohmann::json::parse(lines.at(row->key));
    std::vector<std::string> cells;
    for (const Axis axis : varying) cells.push_back(row->point[axis].empty() ? "-" : row->point[axis]);
    for (const auto& [key, title] : kColumns) cells.push_back(cell(line["metrics"], key));
    cells.push_back(fmt::format("{}", line["bytes_per_token"].get<int>()));
    cells.push_back(fmt::format("{:.2f}x", line["compression"].get<double>()));
    table.row(cells);
  }
  return "loss in nats a token, its increase over an FP16 cache, KL and top-1 agreement of the next token's\n"
         "distribution with that cache's; far: at positions that see codes; +-: 1.96 standard errors over "
         "windows\n"
         "bytes: of a quantised token, of what is quantised\n\n" +
         table.text();
}

}  // namespace tq
