#include "experiments/sweep/summary.h"

#include <fmt/format.h>

#include <algorithm>
#include <boost/math/distributions/students_t.hpp>
#include <cmath>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>

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

struct Estimate {
  double mean;
  std::optional<double> half_width;
};

std::optional<Estimate> estimate(const Row& row, const char* metric) {
  std::vector<double> means;
  std::optional<double> own;
  for (const Json& line : row.lines) {
    const auto found = line["metrics"].find(metric);
    if (found == line["metrics"].end() || (*found)["mean"].is_null()) return std::nullopt;
    means.push_back((*found)["mean"].get<double>());
    if (!(*found)["half_width"].is_null()) own = (*found)["half_width"].get<double>();
  }
  const double n = static_cast<double>(means.size());
  double mean = 0, squares = 0;
  for (const double value : means) mean += value / n;
  if (means.size() < 2) return Estimate{mean, own};
  for (const double value : means) squares += (value - mean) * (value - mean);
  const double t = boost::math::quantile(boost::math::students_t(n - 1), 0.975);
  return Estimate{mean, t * std::sqrt(squares / (n - 1) / n)};
}

// As many decimals as show the half-width with two digits.
std::string cell(const std::optional<Estimate>& estimate) {
  if (!estimate) return "-";
  constexpr int kMostDecimals = 8;
  const double width = estimate->half_width.value_or(0);
  const int decimals =
      width > 0 ? std::clamp(1 - static_cast<int>(std::floor(std::log10(width))), 1, kMostDecimals) : 5;
  if (!estimate->half_width) return fmt::format("{:.{}f}", estimate->mean, decimals);
  return fmt::format("{:.{}f} +- {:.{}f}", estimate->mean, decimals, width, decimals);
}

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
