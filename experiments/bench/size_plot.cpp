#include "experiments/bench/size_plot.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <utility>

#include "core/error.h"
#include "experiments/gnuplot.h"
#include "experiments/table.h"

namespace tq::bench {
namespace {

constexpr double kFrameWidth = 640;

// A size of a row, and the two others.
struct Axis {
  const char *name, *title;
  int BenchRow::*value;
  std::pair<const char*, int BenchRow::*> others[2];
};
constexpr Axis kAxes[] = {
    {"tokens", "tokens", &BenchRow::tokens, {{"batch", &BenchRow::batch}, {"d", &BenchRow::d}}},
    {"batch",
     "sequences in the batch",
     &BenchRow::batch,
     {{"tokens", &BenchRow::tokens}, {"d", &BenchRow::d}}},
    {"d", "head_dim", &BenchRow::d, {{"batch", &BenchRow::batch}, {"tokens", &BenchRow::tokens}}},
};

const Axis& axis_named(const std::string& name) {
  for (const Axis& axis : kAxes) {
    if (name == axis.name) return axis;
  }
  throw UsageError("--x '{}' is unknown; of a bench's sizes, choose one of: tokens, batch, d", name);
}

}  // namespace

SizePlot sizes_of(const BenchFile& file, const std::string& path, const std::string& x) {
  const Axis& axis = axis_named(x);
  std::map<std::pair<int, int>, std::vector<const BenchRow*>> groups;
  for (const BenchRow& row : file.rows) {
    if (row.family == "size" && !row.failed)
      groups[{row.*axis.others[0].second, row.*axis.others[1].second}].push_back(&row);
  }
  const auto largest = std::max_element(groups.begin(), groups.end(), [](const auto& a, const auto& b) {
    return a.second.size() < b.second.size();
  });
  if (largest == groups.end()) {
    throw InputError("{}: no row of size; measure some with: tq bench --only size --json FILE", path);
  }
  SizePlot plot{fmt::format("{}, revision {}: {} {}, {} {}", file.device, file.revision, axis.others[0].first,
                            largest->first.first, axis.others[1].first, largest->first.second),
                axis.title,
                {}};
  for (const BenchRow* row : largest->second) {
    auto series = std::find_if(plot.series.begin(), plot.series.end(),
                               [&](const SizePlot::Series& each) { return each.label == row->codec; });
    if (series == plot.series.end()) series = plot.series.insert(series, {row->codec, {}});
    series->points.push_back({static_cast<double>(row->*axis.value), row->median_us});
  }
  for (SizePlot::Series& series : plot.series) {
    std::sort(series.points.begin(), series.points.end(),
              [](const PlotPoint& a, const PlotPoint& b) { return a.x < b.x; });
  }
  return plot;
}

std::string size_script(const SizePlot& plot, PlotFormat format) {
  std::size_t letters = 0;
  std::vector<double> x, y;
  for (const SizePlot::Series& series : plot.series) {
    letters = std::max(letters, series.label.size());
    for (const PlotPoint& point : series.points) {
      x.push_back(point.x);
      y.push_back(point.y);
    }
  }
  PlotScript script(format, kFrameWidth, 105 + PlotScript::kLetterWidth * static_cast<double>(letters),
                    PlotScript::kLeastHeight);
  script.titles(plot.title, plot.x, "microseconds: lower is better");
  script.x_axis(axis_range(x));
  script.y_axis(axis_range(y));
  std::string commands;
  for (std::size_t i = 0; i < plot.series.size(); ++i) {
    const PlotStyle& style = plot_style(i);
    script.block(fmt::format("series{}", i), plot.series[i].points);
    commands +=
        fmt::format("{} $series{} using 1:2 with linespoints pt {} ps 0.9 lw 1.2 dt {} lc rgb '{}' title {}",
                    i == 0 ? "plot" : ", \\\n ", i, style.mark, style.dashes, style.colour,
                    gnuplot_string(plot.series[i].label));
  }
  script.add("{}\n", commands);
  return script.text();
}

std::string size_text(const SizePlot& plot) {
  Table table({"codec", plot.x, "us"});
  for (const SizePlot::Series& series : plot.series) {
    std::string label = series.label;
    for (const PlotPoint& point : series.points) {
      table.row({label, fmt::format("{:.0f}", point.x), fmt::format("{:.2f}", point.y)});
      label.clear();
    }
  }
  return fmt::format("{}:\n\n{}", plot.title, table.text());
}

nlohmann::ordered_json to_json(const SizePlot& plot) {
  nlohmann::ordered_json list = nlohmann::ordered_json::array();
  for (const SizePlot::Series& series : plot.series) {
    nlohmann::ordered_json points = nlohmann::ordered_json::array();
    for (const PlotPoint& point : series.points) points.push_back({{"x", point.x}, {"y", point.y}});
    list.push_back({{"label", series.label}, {"points", points}});
  }
  return {{"x", plot.x}, {"y", "microseconds"}, {"series", list}};
}

}  // namespace tq::bench
