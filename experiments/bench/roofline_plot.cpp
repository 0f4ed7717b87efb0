#include "experiments/bench/roofline_plot.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "core/error.h"
#include "experiments/gnuplot.h"
#include "experiments/table.h"

namespace tq::bench {
namespace {

constexpr double kFrameWidth = 640;
constexpr std::array kFamilies{"attend", "score"};

double side_width(const RooflinePlot& plot) {
  std::size_t letters = 24;
  for (const RooflinePlot::Series& series : plot.series) letters = std::max(letters, series.label.size());
  return 25 + 60 + PlotScript::kLetterWidth * static_cast<double>(letters) + 20;
}

double probe_us(const RooflinePlot& plot, double megabytes) { return megabytes * 1e6 / plot.bytes_per_us; }

RooflinePlot::Series& series_named(RooflinePlot& plot, const std::string& label) {
  for (RooflinePlot::Series& series : plot.series) {
    if (series.label == label) return series;
  }
  return plot.series.emplace_back(RooflinePlot::Series{label, {}});
}

}  // namespace

RooflinePlot roofline_of(const BenchFile& file, const std::string& path) {
  if (!file.probe_bytes_per_us) throw InputError("{}: holds no read probe to compare with", path);
  RooflinePlot plot{fmt::format("{}, revision {}", file.device, file.revision), *file.probe_bytes_per_us, {}};
  for (const BenchRow& row : file.rows) {
    if (row.failed || row.bytes <= 0 ||
        std::find(kFamilies.begin(), kFamilies.end(), row.family) == kFamilies.end())
      continue;
    series_named(plot, fmt::format("{} {}", row.family, row.codec))
        .points.push_back({row.bytes / 1e6, row.median_us});
  }
  if (plot.series.empty()) {
    throw InputError("{}: no row of attend or score; there is nothing to plot", path);
  }
  return plot;
}

std::string roofline_script(const RooflinePlot& plot, PlotFormat format) {
  PlotScript script(format, kFrameWidth, side_width(plot), PlotScript::kLeastHeight);
  script.titles(plot.title, "MB that must move", "microseconds: lower is better");
  std::vector<double> x, y;
  for (const RooflinePlot::Series& series : plot.series) {
    for (const PlotPoint& point : series.points) {
      x.push_back(point.x);
      y.push_back(point.y);
    }
  }
  const auto [least, most] = std::minmax_element(x.begin(), x.end());
  for (const double end : {*least, *most}) y.push_back(probe_us(plot, end));
  script.x_axis(axis_range(x, 1));
  script.y_axis(axis_range(y, 1));
  script.block("probe", {{*least, probe_us(plot, *least)}, {*most, probe_us(plot, *most)}});
  std::string commands =
      fmt::format("plot $probe using 1:2 with lines lw 1.4 lc rgb 'black' title {}",
                  gnuplot_string(fmt::format("read probe, {:.2f} TB/s", plot.bytes_per_us / 1e6)));
  for (std::size_t i = 0; i < plot.series.size(); ++i) {
    const PlotStyle& style = plot_style(i);
    script.block(fmt::format("series{}", i), plot.series[i].points);
    commands +=
        fmt::format(", \\\n  $series{} using 1:2 with points pt {} ps 0.9 lw 1.2 lc rgb '{}' title {}", i,
                    style.mark, style.colour, gnuplot_string(plot.series[i].label));
  }
  script.add("{}\n", commands);
  return script.text();
}

std::string roofline_text(const RooflinePlot& plot) {
  Table table({"series", "MB", "us", "TB/s", "of the probe"});
  for (const RooflinePlot::Series& series : plot.series) {
    std::string label = series.label;
    for (const PlotPoint& point : series.points) {
      table.row({label, fmt::format("{:.2f}", point.x), fmt::format("{:.2f}", point.y),
                 fmt::format("{:.2f}", point.x / point.y),
                 fmt::format("{:.1f} %", 100 * probe_us(plot, point.x) / point.y)});
      label.clear();
    }
  }
  return fmt::format("{}; read probe {:.2f} TB/s:\n\n{}", plot.title, plot.bytes_per_us / 1e6, table.text());
}

nlohmann::ordered_json to_json(const RooflinePlot& plot) {
  nlohmann::ordered_json list = nlohmann::ordered_json::array();
  for (const RooflinePlot::Series& series : plot.series) {
    nlohmann::ordered_json points = nlohmann::ordered_json::array();
    for (const PlotPoint& point : series.points) points.push_back({{"x", point.x}, {"y", point.y}});
    list.push_back({{"label", series.label}, {"points", points}});
  }
  return {
      {"x", "megabytes"}, {"y", "microseconds"}, {"probe_bytes_per_us", plot.bytes_per_us}, {"series", list}};
}

}  // namespace tq::bench
