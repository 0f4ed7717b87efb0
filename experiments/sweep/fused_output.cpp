#include "experiments/sweep/fused_output.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <set>
#include <vector>

#include "experiments/table.h"

namespace tq {
namespace {

struct Column {
  Axis axis;
  const char* title;
};
// How a cache's shape is written down; other axes have a column where they vary.
constexpr std::array<Column, 6> kShape{{{Axis::heads, "BH"},
                                        {Axis::gqa, "G"},
                                        {Axis::rows, "N"},
                                        {Axis::d, "D"},
                                        {Axis::value_bits, "vbits"},
                                        {Axis::group_size, "gs"}}};

std::vector<Column> columns_of(const std::vector<const Configuration*>& rows) {
  std::vector<Column> columns(kShape.begin(), kShape.end());
  for (const AxisInfo& axis : axes()) {
    std::set<std::string> values;
    for (const Configuration* row : rows) values.insert(row->point[axis.axis]);
    const bool shown = std::any_of(kShape.begin(), kShape.end(),
                                   [&](const Column& column) { return column.axis == axis.axis; });
    if (values.size() > 1 && !shown) columns.push_back({axis.axis, axis.name});
  }
  return columns;
}

// NaN is written as null.
double number(const nlohmann::json& metric) {
  return metric.is_null() ? std::numeric_limits<double>::quiet_NaN() : metric.get<double>();
}

}  // namespace

std::string fused_line(const Configuration& configuration, const FusedReport& report) {
  nlohmann::ordered_json line;
  line["key"] = configuration.key;
  line["configuration"] = to_json(configuration.point);
  line["metrics"] = {{"max_error", report.max_error},
                     {"relative_error", report.relative_error},
                     {"cosine", report.cosine},
                     {"lse_error", report.lse_error}};
  line["pass"] = report.pass();
  return line.dump();
}

FusedSummary fused_summary(const SweepPlan& plan, const std::map<std::string, std::string>& lines) {
  std::vector<const Configuration*> rows;
  for (const Configuration& configuration : plan.configurations) {
    if (configuration.fused) rows.push_back(&configuration);
  }
  FusedSummary summary;
  if (rows.empty()) return summary;
  const std::vector<Column> columns = columns_of(rows);
  std::vector<std::string> header;
  for (const Column& column : columns) header.emplace_back(column.title);
  header.insert(header.end(), {"max_err", "relative", "cos", "lse err", "result"});
  Table table(header);
  std::size_t passed = 0;
  for (const Configuration* row : rows) {
    const nlohmann::json line = nlohmann::json::parse(lines.at(row->key));
    const nlohmann::json& metrics = line["metrics"];
    const bool pass = line["pass"].get<bool>();
    passed += pass ? 1 : 0;
    std::vector<std::string> cells;
    for (const Column& column : columns) {
      const std::string& value = row->point[column.axis];
      cells.push_back(value.empty() ? "-" : value);
    }
    cells.push_back(fmt::format("{:.1e}", number(metrics["max_error"])));
    cells.push_back(fmt::format("{:.1e}", number(metrics["relative_error"])));
    cells.push_back(fmt::format("{:.8f}", number(metrics["cosine"])));
    cells.push_back(fmt::format("{:.1e}", number(metrics["lse_error"])));
    cells.emplace_back(pass ? "PASS" : "FAIL");
    table.row(cells);
  }
  summary.passed = passed == rows.size();
  summary.table = fmt::format(
      "fused attention over codes against float64 over the same codes, the worst of all heads\n"
      "BH: KV heads, G: query heads a KV head, N: tokens, D: head_dim; PASS: relative error < 2e-3 and "
      "cosine > 0.99999\n\n{}\n{} of {} pass\n",
      table.text(), passed, rows.size());
  return summary;
}

}  // namespace tq
