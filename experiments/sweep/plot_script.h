#pragma once

#include <fmt/format.h>

#include <array>
#include <cstddef>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "experiments/sweep/label_placer.h"

namespace tq {

enum class PlotFormat { svg, png };

// A file's format by its extension. Throws UsageError for another.
PlotFormat plot_format_of(const std::string& path);

// Marks and dashes are apart in black and white, colours for the colour-blind.
struct PlotStyle {
  int mark;
  const char* colour;
  const char* dashes;
};
inline constexpr std::size_t kPlotStyles = 8;
const PlotStyle& plot_style(std::size_t index);  // the first again after the last

struct AxisRange {
  double least, most;
  bool logarithmic;

  // 0 at the lower end, 1 at the upper.
  double position(double value) const;
  // 0 and less lies on the lower edge of a logarithmic axis.
  double drawn(double value) const;
};

// With a margin; logarithmic where the largest value is more than `linear` times the least that is not 0.
AxisRange axis_range(const std::vector<double>& values, double linear = 10);

struct PlotPoint {
  double x, y;
  double half_width = 0;  // of y; 0: none
};

// A plot as gnuplot's commands, data included: the frame on the left, beside it what explains it. All
// lengths are pixels of the SVG; a PNG has one and a half times as many.
class PlotScript {
 public:
  static constexpr double kLeft = 90, kTop = 50, kBottom = 72, kLeastHeight = 612;
  static constexpr double kLineHeight = 19, kLetterWidth = 6.8;

  // `side`: the width of what stands beside the frame.
  PlotScript(PlotFormat format, double frame_width, double side, double height);

  void titles(const std::string& plot, const std::string& x, const std::string& y);
  void x_axis(const AxisRange& range) { axis('x', x_ = range); }
  void y_axis(const AxisRange& range) { axis('y', y_ = range); }

  // A data block of x, y and the number of the point; logarithmic axes have 0 on their lower edge.
  void block(const std::string& name, const std::vector<PlotPoint>& points);
  // A data block of x and both ends of the error bars that are longer than a mark. False: there are none, nor
  // is the block.
  bool error_bars(const std::string& name, const std::vector<PlotPoint>& points);
  // What draws such a block.
  static std::string draw_error_bars(const std::string& name, const char* colour);

  // A text over the plot, by pixels, with a thin line to its point where the place says so.
  void text_at(const LabelPlacer::Place& place, const Pixel& point, const std::string& text);

  template <typename... Args>
  void add(fmt::format_string<Args...> text, Args&&... args) {
    text_ += fmt::format(text, std::forward<Args>(args)...);
  }

  Box frame() const;
  Pixel pixel(double x, double y) const;
  // As gnuplot writes a place.
  std::string screen(double x, double y) const;
  const std::string& text() const { return text_; }

 private:
  void axis(char name, const AxisRange& range);

  double frame_width_, width_, height_;
  AxisRange x_{}, y_{};
  std::string text_;
};

}  // namespace tq
