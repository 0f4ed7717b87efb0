#pragma once

#include <string>
#include <vector>

#include "experiments/sweep/plot_script.h"

namespace tq {

// A mark of a Pareto plot.
struct ParetoPoint {
  PlotPoint at;
  std::size_t group;
  std::string label;  // shown beside the plot when the point is on the front
};

// x: less is better. Marks have the form of their group; each group has its front, dashed; the front of all
// is solid, its points are numbered and listed.
struct ParetoPlot {
  std::string title, x_title, y_title;
  std::string x_name, y_name;  // of the list's columns
  bool less_is_better = true;  // of y
  std::vector<std::string> groups;
  std::vector<ParetoPoint> points;
  std::vector<PlotPoint> bound;  // a curve that no codec can be beyond, by x; may be empty
  std::string bound_title;

  // Indices of the points that no other has both at most the bytes and at least the quality of, by x. Of
  // equal points the first.
  std::vector<std::size_t> front() const;
};

// The plot as gnuplot's commands, data included.
std::string pareto_script(const ParetoPlot& plot, PlotFormat format);

}  // namespace tq
