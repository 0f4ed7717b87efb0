#pragma once

#include <string>
#include <vector>

#include "experiments/sweep/plot_script.h"

namespace tq {

// The bars of one configuration.
struct LayerSeries {
  std::string label;
  std::vector<PlotPoint> bars;  // x: an index of LayerBarsPlot::layers
};

// For every layer the bars of all configurations side by side, from 0.
struct LayerBarsPlot {
  // More cannot be told apart without colours.
  static constexpr std::size_t kMostSeries = 8;

  std::string title, y_title;
  std::vector<int> layers;
  std::vector<LayerSeries> series;
};

// The plot as gnuplot's commands, data included.
std::string layer_bars_script(const LayerBarsPlot& plot, PlotFormat format);

}  // namespace tq
