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
  std::vector<Timing> timings;  // of those that have one
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

// Stored once, whatever the number of tokens.
constexpr std::array<std::pair<const char*, const char*>, 3> kStoredOnce{
    {{"rotation_bytes", "rotation bytes"},
     {"sketch_bytes", "sketch bytes"},
     {"equalisation_bytes", "channel bytes"}}};

// Million vectors a second.
struct SpeedColumn {
  const char* title;
  CodecTimes Timing::*side;
  double CodecTimes::*seconds;
};
constexpr std::array<SpeedColumn, 6> kSpeedColumns{{
    {"key enc Mvec/s", &Timing::keys, &CodecTimes::encode_seconds},
    {"key dec Mvec/s", &Timing::keys, &CodecTimes::decode_seconds},
    {"key enc+dec Mvec/s", &Timing::keys, &CodecTimes::one_pass_seconds},
    {"value enc Mvec/s", &Timing::values, &CodecTimes::encode_seconds},
    {"value dec Mvec/s", &Timing::values, &CodecTimes::decode_seconds},
    {"value enc+dec Mvec/s", &Timing::values, &CodecTimes::one_pass_seconds},
}};

std::optional<Estimate> speed(const Row& row, const SpeedColumn& column) {
  std::vector<Estimate> speeds;
  for (const Timing& timing : row.timings) {
    const CodecTimes& side = timing.*column.side;
    if (side.*column.seconds > 0)
      speeds.push_back({static_cast<double>(side.vectors) / (side.*column.seconds) / 1e6, std::nullopt});
  }
  if (speeds.empty()) return std::nullopt;
  return mean_over_seeds(speeds);
}

std::string cell(const std::optional<Estimate>& estimate) {
  return estimate ? to_string(*estimate, "+-") : "-";
}

std::string speed_cell(const std::optional<Estimate>& estimate) {
  if (!estimate) return "-";
  if (!estimate->half_width) return fmt::format("{:.2f}", estimate->mean);
  return fmt::format("{:.2f} +- {:.2f}", estimate->mean, *estimate->half_width);
}

std::vector<Row> collect(const SweepPlan& plan, const std::map<std::string, std::string>& lines,
                         const std::map<std::string, Timing>& timings) {
  std::vector<Row> rows;
  std::map<std::string, std::size_t> index;
  for (const Configuration& configuration : plan.configurations) {
    const auto line = lines.find(configuration.key);
    if (line == lines.end() || !configuration.has_data()) continue;
    Point point = configuration.point;
    point[Axis::seed].clear();
    const auto [place, is_new] = index.emplace(describe(point), rows.size());
    if (is_new) rows.push_back({point, {}, {}});
    rows[place->second].lines.push_back(Json::parse(line->second));
    if (const auto timing = timings.find(configuration.key); timing != timings.end()) {
      rows[place->second].timings.push_back(timing->second);
    }
  }
  return rows;
}

}  // namespace

std::string summary_table(const SweepPlan& plan, const std::map<std::string, std::string>& lines,
                          const std::map<std::string, Timing>& timings) {
  const std::vector<Row> rows = collect(plan, lines, timings);
  if (rows.empty()) return "";
  std::vector<const Point*> points;
  for (const Row& row : rows) points.push_back(&row.point);
  const std::vector<Axis> varying = varying_axes(points);
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
  std::vector<const char*> stored_once;  // where it differs between codecs
  for (const auto& [name, title] : kStoredOnce) {
    std::set<std::size_t> sizes;
    for (const Row& row : rows) sizes.insert(row.lines.front().value(name, std::size_t{0}));
    if (sizes.size() < 2) continue;
    stored_once.push_back(name);
    header.emplace_back(title);
  }
  std::vector<const SpeedColumn*> speeds;
  for (const SpeedColumn& column : kSpeedColumns) {
    if (std::none_of(rows.begin(), rows.end(), [&](const Row& row) { return speed(row, column); })) continue;
    speeds.push_back(&column);
    header.emplace_back(column.title);
  }
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
    for (const char* name : stored_once) {
      cells.push_back(line.contains(name) ? fmt::format("{}", line[name].get<std::size_t>()) : "-");
    }
    for (const SpeedColumn* column : speeds) cells.push_back(speed_cell(speed(row, *column)));
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
  return text +
         "\npadded: key indices at no fewer than four bits, as upstream counts them; Mvec/s: million vectors "
         "a "
         "second of wall time in the codec\n\n" +
         table.text();
}

}  // namespace tq
