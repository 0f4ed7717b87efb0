#pragma once

#include <string>
#include <vector>

#include "experiments/sweep/plot_script.h"

namespace tq {

// An alpha that a target chose, and what it gives.
struct AlphaTargetPoint {
  std::string name;
  PlotPoint at;
};

struct AlphaCurve {
  std::string label;
  std::vector<PlotPoint> points;          // x: alpha, ascending
  std::vector<AlphaTargetPoint> targets;  // by alpha
};

// A metric against alpha: one curve a sketch and number of bits, on each what the targets choose.
struct AlphaPlot {
  static constexpr std::size_t kMostCurves = kPlotStyles;

  std::string title, y_title;
  std::vector<AlphaCurve> curves;
};

// The plot as gnuplot's commands, data included.
std::string alpha_script(const AlphaPlot& plot, PlotFormat format);

}  // namespace tq
