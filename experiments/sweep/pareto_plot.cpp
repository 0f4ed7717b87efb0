#include "experiments/sweep/pareto_plot.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <numeric>

#include "experiments/gnuplot.h"

namespace tq {
namespace {

// All lengths in pixels of the SVG; a PNG has kPngScale times as many.
constexpr double kPngScale = 1.5;
constexpr double kLeft = 80, kPlotWidth = 640, kTop = 50, kBottom = 72, kLeastHeight = 612;
constexpr double kListLeft = kLeft + kPlotWidth + 25;  // numbers, right-aligned x, y, then the label
constexpr double kListX = 85, kListY = 100, kListLabel = 175;
constexpr double kLineHeight = 19, kLetterWidth = 6.8, kKeyLine = 20;

struct Style {
  int mark;
  const char* colour;  // apart for the colour-blind; marks and dashes are apart without it
  const char* dashes;
};
// Open circle, plus, open triangle, cross, open square, filled circle, open diamond, star.
constexpr std::array<Style, 8> kStyles{{{6, "#0072b2", "(12,4)"},
                                        {1, "#d55e00", "(3,3)"},
                                        {8, "#00765a", "(12,4,3,4)"},
                                        {2, "#a0307a", "(6,6)"},
                                        {4, "#5a4a00", "(18,3,3,3,3,3)"},
                                        {7, "#3b3b9e", "(2,6)"},
                                        {12, "#8a0000", "(9,3)"},
                                        {3, "#444444", "(18,6)"}}};

struct Range {
  double least, most;
  bool logarithmic;
};

// Logarithmic where the values that are not 0 span more than a decade; 0 (nothing is lost) is then drawn on
// the lower edge.
Range range_of(const std::vector<double>& values) {
  const auto [least, most] = std::minmax_element(values.begin(), values.end());
  constexpr double kMargin = 0.06;
  double positive = *most;
  for (const double value : values) positive = value > 0 ? std::min(positive, value) : positive;
  if (*least >= 0 && *most > 10 * positive) {
    const double factor = std::pow(*most / positive, kMargin);
    return {positive / factor, *most * factor, true};
  }
  const double width = *most - *least;
  const double margin = width > 0 ? kMargin * width : std::max(std::fabs(*most) * kMargin, 1e-9);
  return {*least - margin, *most + margin, false};
}

std::string axis_commands(char axis, const Range& range) {
  std::string text = fmt::format("set {}range [{:.17g}:{:.17g}]\n", axis, range.least, range.most);
  if (!range.logarithmic) return text;
  text += fmt::format("set logscale {}\n", axis);
  // Few decades: 1, 2 and 5 of each have a number.
  const bool few = range.most / range.least < 1e3;
  std::string tics;
  for (int decade = static_cast<int>(std::floor(std::log10(range.least))); std::pow(10, decade) <= range.most;
       ++decade) {
    for (const int digit : {1, 2, 5}) {
      if (digit != 1 && !few) continue;
      tics += fmt::format("{}{}e{}", tics.empty() ? "" : ", ", digit, decade);
    }
  }
  return text + fmt::format("set {}tics ({})\n", axis, tics);
}

std::vector<std::size_t> front_of(const std::vector<PlotPoint>& points, std::vector<std::size_t> candidates,
                                  bool less_is_better) {
  const auto cost = [&](std::size_t index) { return less_is_better ? points[index].y : -points[index].y; };
  std::stable_sort(candidates.begin(), candidates.end(), [&](std::size_t a, std::size_t b) {
    return points[a].x != points[b].x ? points[a].x < points[b].x : cost(a) < cost(b);
  });
  std::vector<std::size_t> front;
  for (const std::size_t index : candidates) {
    if (front.empty() || cost(index) < cost(front.back())) front.push_back(index);
  }
  return front;
}

class Script {
 public:
  Script(const ParetoPlot& plot, PlotFormat format) : plot_(plot), front_(plot.front()) {
    std::size_t letters = 30;
    for (const std::size_t index : front_) letters = std::max(letters, plot.points[index].label.size());
    width_ = std::ceil(kListLeft + kListLabel + kLetterWidth * static_cast<double>(letters) + 20);
    const double list = kLineHeight * static_cast<double>(front_.size() + 2);
    const double key = kKeyLine * static_cast<double>(plot.groups.size() + 1);
    height_ = std::max(kLeastHeight, kTop + list + key + kBottom + 20);
    terminal(format);
    frame();
    data();
    list_of_front();
    commands();
  }

  std::string text() const { return text_; }

 private:
  template <typename... Args>
  void add(fmt::format_string<Args...> text, Args&&... args) {
    text_ += fmt::format(text, std::forward<Args>(args)...);
  }

  std::string screen(double x, double y_from_top) const {
    return fmt::format("screen {:.6f}, screen {:.6f}", x / width_, 1 - y_from_top / height_);
  }

  void terminal(PlotFormat format) {
    if (format == PlotFormat::svg) {
      add("set terminal svg noenhanced size {},{} font 'sans-serif,12' background rgb 'white'\n", width_,
          height_);
    } else {
      add("set terminal pngcairo noenhanced size {},{} font 'sans-serif,9' fontscale {} linewidth {} "
          "pointscale {} background rgb 'white'\n",
          kPngScale * width_, kPngScale * height_, kPngScale, kPngScale, kPngScale);
    }
  }

  void frame() {
    add("set encoding utf8\nset lmargin at screen {:.6f}\nset rmargin at screen {:.6f}\n", kLeft / width_,
        (kLeft + kPlotWidth) / width_);
    add("set tmargin at screen {:.6f}\nset bmargin at screen {:.6f}\n", 1 - kTop / height_,
        kBottom / height_);
    add("set label {} at {} left font ',14'\n", gnuplot_string(plot_.title), screen(kLeft, kTop - 22));
    add("set xlabel {}\nset ylabel {}\n", gnuplot_string(plot_.x_title), gnuplot_string(plot_.y_title));
    add("set border 3\nset tics nomirror out\nset grid lc rgb '#d8d8d8' lw 0.5 dt 1\nset format '%g'\n");
    std::vector<double> x, y;
    for (const PlotPoint& point : plot_.points) {
      x.push_back(point.x);
      y.push_back(point.y);
    }
    const Range x_range = range_of(x), y_range = range_of(y);
    text_ += axis_commands('x', x_range) + axis_commands('y', y_range);
    if (x_range.logarithmic) least_x_ = x_range.least;
    if (y_range.logarithmic) least_y_ = y_range.least;
    add("set key at {} left bottom Left reverse samplen 5 spacing 1.3\n",
        screen(kListLeft, height_ - kBottom));
  }

  void block(const std::string& name, const std::vector<std::size_t>& indices) {
    add("${} << EOD\n", name);
    std::size_t number = 0;
    for (const std::size_t index : indices) {
      const PlotPoint& point = plot_.points[index];
      add("{:.17g} {:.17g} {}\n", std::max(point.x, least_x_), std::max(point.y, least_y_), ++number);
    }
    add("EOD\n");
  }

  void data() {
    for (std::size_t group = 0; group < plot_.groups.size(); ++group) {
      std::vector<std::size_t> members;
      for (std::size_t i = 0; i < plot_.points.size(); ++i) {
        if (plot_.points[i].group == group) members.push_back(i);
      }
      block(fmt::format("points{}", group), members);
      block(fmt::format("front{}", group), front_of(plot_.points, members, plot_.less_is_better));
    }
    block("front", front_);
  }

  void list_of_front() {
    double y = kTop + 5;
    const auto row = [&](const std::string& number, const std::string& at_x, const std::string& at_y,
                         const std::string& label) {
      add("set label {} at {} left\n", gnuplot_string(number), screen(kListLeft, y));
      add("set label {} at {} right\n", gnuplot_string(at_x), screen(kListLeft + kListX, y));
      add("set label {} at {} left\n", gnuplot_string(at_y), screen(kListLeft + kListY, y));
      add("set label {} at {} left\n", gnuplot_string(label), screen(kListLeft + kListLabel, y));
      y += kLineHeight;
    };
    row("", plot_.x_name, plot_.y_name, "on the Pareto front");
    for (std::size_t i = 0; i < front_.size(); ++i) {
      const PlotPoint& point = plot_.points[front_[i]];
      row(fmt::format("{}", i + 1), fmt::format("{:g}", point.x), fmt::format("{:.4g}", point.y),
          point.label);
    }
  }

  // The solid front first, so that marks and numbers lie over it.
  void commands() {
    add("plot $front using 1:2 with steps lw 2 lc rgb 'black' title 'Pareto front of all'");
    for (std::size_t group = 0; group < plot_.groups.size(); ++group) {
      const Style& style = kStyles[group % kStyles.size()];
      const std::string line = fmt::format("lw 1.2 dt {} lc rgb '{}'", style.dashes, style.colour);
      const std::string mark = fmt::format("pt {} ps 1 lw 1.3 lc rgb '{}'", style.mark, style.colour);
      add(", \\\n  $front{} using 1:2 with steps {} notitle", group, line);
      add(", \\\n  $points{} using 1:2 with points {} notitle", group, mark);
      add(", \\\n  keyentry with linespoints {} pt {} ps 1 title {}", line, style.mark,
          gnuplot_string(plot_.groups[group] + ", and their front"));
    }
    // Below the front (above it, where more is better) there is nothing that a number could lie on.
    add(", \\\n  $front using 1:2:3 with labels right offset -0.7,{} tc rgb 'black' notitle\n",
        plot_.less_is_better ? "-0.6" : "0.6");
  }

  const ParetoPlot& plot_;
  std::vector<std::size_t> front_;
  double width_ = 0, height_ = 0;
  double least_x_ = std::numeric_limits<double>::lowest(), least_y_ = least_x_;  // of a logarithmic axis
  std::string text_;
};

}  // namespace

std::vector<std::size_t> ParetoPlot::front() const {
  std::vector<std::size_t> all(points.size());
  std::iota(all.begin(), all.end(), std::size_t{0});
  return front_of(points, std::move(all), less_is_better);
}

std::string pareto_script(const ParetoPlot& plot, PlotFormat format) { return Script(plot, format).text(); }

}  // namespace tq
