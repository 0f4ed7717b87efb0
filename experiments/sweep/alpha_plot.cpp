#include "experiments/sweep/alpha_plot.h"

#include <algorithm>
#include <cmath>

#include "experiments/gnuplot.h"

namespace tq {
namespace {

constexpr double kFrameWidth = 640, kTextHeight = 14, kLetterWidth = 7;
constexpr double kSameMark = 6;  // pixels

// The curve goes through its targets: they are measured as its points are.
std::vector<PlotPoint> line_of(const AlphaCurve& curve) {
  std::vector<PlotPoint> line = curve.points;
  for (const AlphaTargetPoint& target : curve.targets) line.push_back(target.at);
  std::stable_sort(line.begin(), line.end(),
                   [](const PlotPoint& a, const PlotPoint& b) { return a.x < b.x; });
  return line;
}

double side_width(const AlphaPlot& plot) {
  std::size_t letters = 24;
  for (const AlphaCurve& curve : plot.curves) letters = std::max(letters, curve.label.size());
  return 25 + 60 + PlotScript::kLetterWidth * static_cast<double>(letters) + 20;
}

// Targets of a curve whose marks lie on each other share a label.
void name_targets(const AlphaPlot& plot, PlotScript& script) {
  LabelPlacer placer(script.frame());
  for (const AlphaCurve& curve : plot.curves) {
    const std::vector<PlotPoint> line = line_of(curve);
    for (std::size_t i = 0; i < line.size(); ++i) {
      const PlotPoint& point = line[i];
      placer.add_mark(script.pixel(point.x, point.y));
      placer.add_line(script.pixel(point.x, point.y - point.half_width),
                      script.pixel(point.x, point.y + point.half_width));
      if (i > 0) placer.add_line(script.pixel(line[i - 1].x, line[i - 1].y), script.pixel(point.x, point.y));
    }
  }
  for (const AlphaCurve& curve : plot.curves) {
    for (std::size_t i = 0; i < curve.targets.size();) {
      const auto pixel = [&](std::size_t target) {
        return script.pixel(curve.targets[target].at.x, curve.targets[target].at.y);
      };
      const Pixel point = pixel(i);
      std::string text = curve.targets[i].name;
      while (++i < curve.targets.size() &&
             std::hypot(pixel(i).x - point.x, pixel(i).y - point.y) < kSameMark) {
        text += ", " + curve.targets[i].name;
      }
      const double width = kLetterWidth * static_cast<double>(text.size()) + 4;
      script.text_at(placer.place(point, width, kTextHeight, {0, -1}), point, text);
    }
  }
}

}  // namespace

std::string alpha_script(const AlphaPlot& plot, PlotFormat format) {
  PlotScript script(format, kFrameWidth, side_width(plot), PlotScript::kLeastHeight);
  script.titles(plot.title, "alpha, the factor of the sketched residual", plot.y_title);
  std::vector<double> x, y;
  for (const AlphaCurve& curve : plot.curves) {
    for (const PlotPoint& point : line_of(curve)) {
      x.push_back(point.x);
      y.push_back(point.y);
    }
  }
  script.x_axis([&] {  // never logarithmic
    const auto [least, most] = std::minmax_element(x.begin(), x.end());
    const double margin = *most > *least ? 0.04 * (*most - *least) : 0.1;
    return AxisRange{*least - margin, *most + margin, false};
  }());
  script.y_axis(axis_range(y));
  std::string commands;
  const auto draw = [&](const std::string& what) {
    commands += (commands.empty() ? "plot " : ", \\\n  ") + what;
  };
  std::vector<PlotPoint> targets;
  for (std::size_t i = 0; i < plot.curves.size(); ++i) {
    const AlphaCurve& curve = plot.curves[i];
    const PlotStyle& style = plot_style(i);
    script.block(fmt::format("line{}", i), line_of(curve));
    script.block(fmt::format("points{}", i), curve.points);
    const std::string line = fmt::format("lw 1.4 dt {} lc rgb '{}'", style.dashes, style.colour);
    const std::string mark = fmt::format("pt {} ps 0.8 lw 1.2 lc rgb '{}'", style.mark, style.colour);
    draw(fmt::format("$line{} using 1:2 with lines {} notitle", i, line));
    if (script.error_bars(fmt::format("bars{}", i), line_of(curve))) {
      draw(PlotScript::draw_error_bars(fmt::format("bars{}", i), style.colour));
    }
    draw(fmt::format("$points{} using 1:2 with points {} notitle", i, mark));
    draw(fmt::format("keyentry with linespoints {} pt {} ps 0.8 title {}", line, style.mark,
                     gnuplot_string(curve.label)));
    for (const AlphaTargetPoint& target : curve.targets) targets.push_back(target.at);
  }
  if (!targets.empty()) {
    script.block("targets", targets);
    draw("$targets using 1:2 with points pt 13 ps 1.3 lc rgb 'black' title 'what a target chooses'");
  }
  name_targets(plot, script);
  script.add("{}\n", commands);
  return script.text();
}

}  // namespace tq
