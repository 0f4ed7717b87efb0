#include "experiments/sweep/pareto_plot.h"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>
#include <string_view>

#include "experiments/gnuplot.h"

namespace tq {
namespace {

constexpr double kFrameWidth = 640, kKeyLine = 20, kDigitWidth = 8, kTextHeight = 13;
constexpr double kListLeft = PlotScript::kLeft + kFrameWidth + 25;
constexpr double kListX = 85, kListY = 100, kListLabel = 175;  // right-aligned x, y, the label
constexpr double kKeyText = 60;                                // where the key's texts begin
constexpr std::string_view kTheirFront = ", and their front";
constexpr double kLinearBytes = 4;      // over more, the low rates would be a corner of the plot
constexpr double kMostBoundRoom = 0.1;  // of the least error: how far down the bound may stretch the axis

std::vector<std::size_t> front_of(const std::vector<ParetoPoint>& points, std::vector<std::size_t> candidates,
                                  bool less_is_better) {
  const auto x = [&](std::size_t index) { return points[index].at.x; };
  const auto cost = [&](std::size_t index) {
    return less_is_better ? points[index].at.y : -points[index].at.y;
  };
  std::stable_sort(candidates.begin(), candidates.end(), [&](std::size_t a, std::size_t b) {
    return x(a) != x(b) ? x(a) < x(b) : cost(a) < cost(b);
  });
  std::vector<std::size_t> front;
  for (const std::size_t index : candidates) {
    if (front.empty() || cost(index) < cost(front.back())) front.push_back(index);
  }
  return front;
}

class Drawing {
 public:
  Drawing(const ParetoPlot& plot, PlotFormat format)
      : plot_(plot), front_(plot.front()), script_(format, kFrameWidth, side(), height()) {
    script_.titles(plot.title, plot.x_title, plot.y_title);
    axes();
    data();
    list_of_front();
    numbers();
    commands();
  }

  const std::string& text() const { return script_.text(); }

 private:
  double side() const {
    std::size_t list = 22, key = plot_.bound.empty() ? 0 : plot_.bound_title.size();
    for (const std::size_t index : front_) list = std::max(list, plot_.points[index].label.size());
    for (const std::string& group : plot_.groups) key = std::max(key, group.size() + kTheirFront.size());
    const auto width = [](double left, std::size_t letters) {
      return left + PlotScript::kLetterWidth * static_cast<double>(letters);
    };
    return 25 + std::max(width(kListLabel, list), width(kKeyText, key)) + 20;
  }

  double height() const {
    const double list = PlotScript::kLineHeight * static_cast<double>(front_.size() + 2);
    const double key = kKeyLine * static_cast<double>(plot_.groups.size() + 2);
    return std::max(PlotScript::kLeastHeight, PlotScript::kTop + list + key + PlotScript::kBottom + 20);
  }

  void axes() {
    std::vector<double> x, y;
    for (const ParetoPoint& point : plot_.points) {
      x.push_back(point.at.x);
      y.push_back(point.at.y);
    }
    script_.x_axis(axis_range(x, kLinearBytes));
    // The bound is in sight where it does not press the points into a corner.
    const double least = *std::min_element(y.begin(), y.end());
    for (const PlotPoint& point : plot_.bound) {
      if (!plot_.less_is_better || point.y > kMostBoundRoom * least) y.push_back(point.y);
    }
    script_.y_axis(y_ = axis_range(y));
  }

  std::vector<PlotPoint> places(const std::vector<std::size_t>& indices) const {
    std::vector<PlotPoint> list;
    for (const std::size_t index : indices) list.push_back(plot_.points[index].at);
    return list;
  }

  void data() {
    for (std::size_t group = 0; group < plot_.groups.size(); ++group) {
      std::vector<std::size_t> members;
      for (std::size_t i = 0; i < plot_.points.size(); ++i) {
        if (plot_.points[i].group == group) members.push_back(i);
      }
      script_.block(fmt::format("points{}", group), places(members));
      script_.block(fmt::format("front{}", group),
                    places(front_of(plot_.points, members, plot_.less_is_better)));
      has_bars_.push_back(script_.error_bars(fmt::format("bars{}", group), places(members)));
    }
    script_.block("front", places(front_));
    std::vector<PlotPoint> bound;
    for (const PlotPoint& point : plot_.bound) {
      if (point.y >= y_.least && point.y <= y_.most) bound.push_back(point);
    }
    if (!(has_bound_ = bound.size() > 1)) return;
    script_.block("bound", bound);
  }

  void list_of_front() {
    double y = PlotScript::kTop + 5;
    const auto row = [&](const std::string& number, const std::string& at_x, const std::string& at_y,
                         const std::string& label) {
      script_.add("set label {} at {} left\n", gnuplot_string(number), script_.screen(kListLeft, y));
      script_.add("set label {} at {} right\n", gnuplot_string(at_x), script_.screen(kListLeft + kListX, y));
      script_.add("set label {} at {} left\n", gnuplot_string(at_y), script_.screen(kListLeft + kListY, y));
      script_.add("set label {} at {} left\n", gnuplot_string(label),
                  script_.screen(kListLeft + kListLabel, y));
      y += PlotScript::kLineHeight;
    };
    row("", plot_.x_name, plot_.y_name, "on the Pareto front");
    for (std::size_t i = 0; i < front_.size(); ++i) {
      const ParetoPoint& point = plot_.points[front_[i]];
      row(fmt::format("{}", i + 1), fmt::format("{:g}", point.at.x), fmt::format("{:.4g}", point.at.y),
          point.label);
    }
  }

  // Beside the points of the front, on the side where there are no others if there is room.
  void numbers() {
    LabelPlacer placer(script_.frame());
    for (const ParetoPoint& point : plot_.points) placer.add_mark(script_.pixel(point.at.x, point.at.y));
    for (std::size_t i = 1; i < front_.size(); ++i) {  // steps
      const PlotPoint &from = plot_.points[front_[i - 1]].at, &to = plot_.points[front_[i]].at;
      placer.add_line(script_.pixel(from.x, from.y), script_.pixel(to.x, from.y));
      placer.add_line(script_.pixel(to.x, from.y), script_.pixel(to.x, to.y));
    }
    for (std::size_t i = 1; i < plot_.bound.size(); ++i) {
      const PlotPoint &from = plot_.bound[i - 1], &to = plot_.bound[i];
      placer.add_line(script_.pixel(from.x, from.y), script_.pixel(to.x, to.y));
    }
    for (std::size_t i = 0; i < front_.size(); ++i) {
      const PlotPoint& at = plot_.points[front_[i]].at;
      const Pixel point = script_.pixel(at.x, at.y);
      const std::string number = fmt::format("{}", i + 1);
      const double width = kDigitWidth * static_cast<double>(number.size());
      const auto place = placer.place(point, width, kTextHeight, {-1.0, plot_.less_is_better ? 1.0 : -1.0});
      script_.text_at(place, point, number);
    }
  }

  // The solid front first, so that marks lie over it.
  void commands() {
    script_.add("plot $front using 1:2 with steps lw 2 lc rgb 'black' title 'Pareto front of all'");
    if (has_bound_) {
      script_.add(", \\\n  $bound using 1:2 with lines lw 3 dt (1,2) lc rgb '#404040' title {}",
                  gnuplot_string(plot_.bound_title));
    }
    for (std::size_t group = 0; group < plot_.groups.size(); ++group) {
      const PlotStyle& style = plot_style(group);
      const std::string line = fmt::format("lw 1.2 dt {} lc rgb '{}'", style.dashes, style.colour);
      const std::string mark = fmt::format("pt {} ps 1 lw 1.3 lc rgb '{}'", style.mark, style.colour);
      script_.add(", \\\n  $front{} using 1:2 with steps {} notitle", group, line);
      if (has_bars_[group]) {
        script_.add(", \\\n  {}", PlotScript::draw_error_bars(fmt::format("bars{}", group), style.colour));
      }
      script_.add(", \\\n  $points{} using 1:2 with points {} notitle", group, mark);
      script_.add(", \\\n  keyentry with linespoints {} pt {} ps 1 title {}", line, style.mark,
                  gnuplot_string(plot_.groups[group] + std::string(kTheirFront)));
    }
    script_.add("\n");
  }

  const ParetoPlot& plot_;
  std::vector<std::size_t> front_;
  PlotScript script_;
  AxisRange y_{};
  std::vector<bool> has_bars_;
  bool has_bound_ = false;
};

}  // namespace

std::vector<std::size_t> ParetoPlot::front() const {
  std::vector<std::size_t> all(points.size());
  std::iota(all.begin(), all.end(), std::size_t{0});
  return front_of(points, std::move(all), less_is_better);
}

std::string pareto_script(const ParetoPlot& plot, PlotFormat format) { return Drawing(plot, format).text(); }

}  // namespace tq
