#include "experiments/sweep/layer_bars_plot.h"

#include <algorithm>
#include <array>

#include "experiments/gnuplot.h"

namespace tq {
namespace {

// Solid greys and hatchings in turn, so that neighbours differ most.
constexpr std::array<const char*, LayerBarsPlot::kMostSeries> kFills{
    "fs solid 1 border lc rgb 'black' fc rgb '#484848'", "fs solid 1 border lc rgb 'black' fc rgb 'white'",
    "fs pattern 4 border lc rgb 'black' fc rgb 'black'", "fs solid 1 border lc rgb 'black' fc rgb '#c4c4c4'",
    "fs pattern 2 border lc rgb 'black' fc rgb 'black'", "fs solid 1 border lc rgb 'black' fc rgb '#8a8a8a'",
    "fs pattern 5 border lc rgb 'black' fc rgb 'black'", "fs pattern 1 border lc rgb 'black' fc rgb 'black'"};

constexpr double kLeastFrame = 640, kMostFrame = 2400, kBar = 7, kGap = 14;
constexpr double kGapShare = 0.22;  // of a layer's width
constexpr std::size_t kMostNumbers = 40;

double frame_width(const LayerBarsPlot& plot) {
  const double layer = kBar * static_cast<double>(plot.series.size()) + kGap;
  return std::clamp(layer * static_cast<double>(plot.layers.size()), kLeastFrame, kMostFrame);
}

double side_width(const LayerBarsPlot& plot) {
  std::size_t letters = 0;
  for (const LayerSeries& series : plot.series) letters = std::max(letters, series.label.size());
  return 25 + 60 + PlotScript::kLetterWidth * static_cast<double>(letters) + 20;
}

// From 0, so that a bar's length is its value.
AxisRange height_range(const LayerBarsPlot& plot) {
  double least = 0, most = 0;
  for (const LayerSeries& series : plot.series) {
    for (const PlotPoint& bar : series.bars) {
      least = std::min(least, bar.y < 0 ? bar.y - bar.half_width : bar.y);
      most = std::max(most, bar.y > 0 ? bar.y + bar.half_width : bar.y);
    }
  }
  if (least == most) return {0, 1, false};
  const double margin = 0.05 * (most - least);
  return {least < 0 ? least - margin : 0, most > 0 ? most + margin : 0, false};
}

}  // namespace

std::string layer_bars_script(const LayerBarsPlot& plot, PlotFormat format) {
  PlotScript script(format, frame_width(plot), side_width(plot), PlotScript::kLeastHeight);
  script.titles(plot.title, "layer", plot.y_title);
  script.x_axis({-0.5, static_cast<double>(plot.layers.size()) - 0.5, false});
  script.y_axis(height_range(plot));
  const std::size_t step = (plot.layers.size() + kMostNumbers - 1) / kMostNumbers;
  std::string tics;
  for (std::size_t i = 0; i < plot.layers.size(); i += step) {
    tics += fmt::format("{}'{}' {}", i == 0 ? "" : ", ", plot.layers[i], i);
  }
  script.add("set xtics ({}) scale 0\nset grid noxtics ytics\nset xzeroaxis lt -1\n", tics);
  const double width = (1 - kGapShare) / static_cast<double>(plot.series.size());
  std::vector<bool> has_bars;
  for (std::size_t i = 0; i < plot.series.size(); ++i) {
    const double shift = width * (static_cast<double>(i) - (static_cast<double>(plot.series.size()) - 1) / 2);
    std::vector<PlotPoint> bars = plot.series[i].bars;
    for (PlotPoint& bar : bars) bar.x += shift;
    script.block(fmt::format("series{}", i), bars);
    has_bars.push_back(script.error_bars(fmt::format("bars{}", i), bars));
  }
  for (std::size_t i = 0; i < plot.series.size(); ++i) {
    script.add("{}$series{} using 1:2:({:.6f}) with boxes {} title {}", i == 0 ? "plot " : ", \\\n  ", i,
               width, kFills[i % kFills.size()], gnuplot_string(plot.series[i].label));
  }
  for (std::size_t i = 0; i < plot.series.size(); ++i) {
    if (!has_bars[i]) continue;
    script.add(", \\\n  {}", PlotScript::draw_error_bars(fmt::format("bars{}", i), "black"));
  }
  script.add("\n");
  return script.text();
}

}  // namespace tq
