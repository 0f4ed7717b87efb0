#include "experiments/sweep/summary.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>

#include "experiments/sweep/averaged_rows.h"
#include "experiments/sweep/metric_columns.h"
#include "experiments/table.h"

namespace tq {
namespace {

using Json = nlohmann::json;

// Configurations that differ in their seed alone.
struct Row {
  Point point;  // without the seed
  std::vector<Json> lines;
};

std::optional<Estimate> estimate(const Row& row, const char* metric) {
  std::vector<Estimate> seeds;
  for (const Json& line : row.lines) {
    const auto found = line["metrics"].find(metric);
    if (found == line["metrics"].end() || (*found)["mean"].is_null()) return std::nullopt;
    Estimate& seed = seeds.emplace_back(Estimate{(*found)["mean"].get<double>(), std::nullopt});
    if (!(*found)["half_width"].is_null()) seed.half_width = (*found)["half_width"].get<double>();
  }
  return mean_over_seeds(seeds);
}

std::string cell(const std::optional<Estimate>& value) { return value ? to_string(*value, "+-") : "-"; }

std::vector<Row> collect(const SweepPlan& plan, const std::map<std::string, std::string>& lines) {
  std::vector<Row> rows;
  std::map<std::string, std::size_t> index;
  for (const Configuration& configuration : plan.configurations) {
    const auto line = lines.find(configuration.key);
    if (line == lines.end() || configuration.fused) continue;
    Point point = configuration.point;
    point[Axis::seed].clear();
    const auto [place, is_new] = index.emplace(describe(point), rows.size());
    if (is_new) rows.push_back({point, {}});
    rows[place->second].lines.push_back(Json::parse(line->second));
  }
  return rows;
}

}  // namespace

std::string summary_table(const SweepPlan& plan, const std::map<std::string, std::string>& lines) {
  const std::vector<Row> rows = collect(plan, lines);
  if (rows.empty()) return "";
  std::vector<Axis> varying;
  for (const AxisInfo& axis : axes()) {
    std::set<std::string> values;
    for (const Row& row : rows) values.insert(row.point[axis.axis]);
    values.erase("");  // where an axis makes no difference follows from the others
    if (values.size() > 1) varying.push_back(axis.axis);
  }
  std::vector<const MetricColumn*> columns;
  for (const MetricColumn& column : kMetricColumns) {
    const bool measured = std::any_of(rows.begin(), rows.end(),
                                      [&](const Row& row) { return estimate(row, column.key).has_value(); });
    if (measured && column.title != nullptr) columns.push_back(&column);
  }
  std::vector<std::string> header;
  for (const Axis axis : varying) header.emplace_back(info(axis).name);
  for (const MetricColumn* column : columns) header.emplace_back(column->title);
  header.insert(header.end(), {"bytes/token", "padded", "vs FP16", "padded"});
  Table table(header);
  std::set<std::size_t> seeds;
  for (const Row& row : rows) {
    seeds.insert(row.lines.size());
    std::vector<std::string> cells;
    for (const Axis axis : varying) cells.push_back(row.point[axis].empty() ? "-" : row.point[axis]);
    for (const MetricColumn* column : columns) cells.push_back(cell(estimate(row, column->key)));
    const Json& line = row.lines.front();
    cells.push_back(fmt::format("{}", line["bytes_per_token"].get<int>()));
    cells.push_back(fmt::format("{}", line["padded_bytes_per_token"].get<int>()));
    cells.push_back(fmt::format("{:.2f}x", line["compression"].get<double>()));
    cells.push_back(fmt::format("{:.2f}x", line["padded_compression"].get<double>()));
    table.row(cells);
  }
  std::string text = "+-: half of the 95 % interval, ";
  if (seeds == std::set<std::size_t>{1}) {
    text += "over the vectors or the queries of one seed";
  } else if (seeds.contains(1)) {
    text += "over seeds (Student's t), of a row with one seed over its vectors or queries";
  } else {
    text += "over seeds (Student's t)";
  }
  return text + "\npadded: key indices at no fewer than four bits, as upstream counts them\n\n" +
         table.text();
}

}  // namespace tq
