#include "experiments/sweep/plot_script.h"

#include <algorithm>
#include <cmath>
#include <filesystem>

#include "core/error.h"
#include "experiments/gnuplot.h"

namespace tq {
namespace {

constexpr double kPngScale = 1.5;
constexpr double kLeastBar = 5;  // half an error bar that shows beside its mark

// Open circle, plus, open triangle, cross, open square, filled circle, open diamond, star.
constexpr std::array<PlotStyle, kPlotStyles> kStyles{{{6, "#0072b2", "(12,4)"},
                                                      {1, "#d55e00", "(3,3)"},
                                                      {8, "#00765a", "(12,4,3,4)"},
                                                      {2, "#a0307a", "(6,6)"},
                                                      {4, "#5a4a00", "(18,3,3,3,3,3)"},
                                                      {7, "#3b3b9e", "(2,6)"},
                                                      {12, "#8a0000", "(9,3)"},
                                                      {3, "#444444", "(18,6)"}}};

}  // namespace

PlotFormat plot_format_of(const std::string& path) {
  const std::string extension = std::filesystem::path(path).extension().string();
  if (extension == ".svg") return PlotFormat::svg;
  if (extension == ".png") return PlotFormat::png;
  throw UsageError("--out {} ends in neither .svg nor .png", path);
}

const PlotStyle& plot_style(std::size_t index) { return kStyles[index % kStyles.size()]; }

double AxisRange::drawn(double value) const { return logarithmic ? std::max(value, least) : value; }

double AxisRange::position(double value) const {
  if (logarithmic) return std::log(drawn(value) / least) / std::log(most / least);
  return (value - least) / (most - least);
}

AxisRange axis_range(const std::vector<double>& values, double linear) {
  const auto [least, most] = std::minmax_element(values.begin(), values.end());
  constexpr double kMargin = 0.06;
  double positive = *most;
  for (const double value : values) positive = value > 0 ? std::min(positive, value) : positive;
  if (*least >= 0 && *most > linear * positive) {
    const double factor = std::pow(*most / positive, kMargin);
    return {positive / factor, *most * factor, true};
  }
  const double width = *most - *least;
  const double margin = width > 0 ? kMargin * width : std::max(std::fabs(*most) * kMargin, 1e-9);
  return {*least - margin, *most + margin, false};
}

PlotScript::PlotScript(PlotFormat format, double frame_width, double side, double height)
    : frame_width_(frame_width), width_(std::ceil(kLeft + frame_width + side)), height_(height) {
  if (format == PlotFormat::svg) {
    add("set terminal svg noenhanced size {},{} font 'sans-serif,12' background rgb 'white'\n", width_,
        height_);
  } else {
    add("set terminal pngcairo noenhanced size {},{} font 'sans-serif,9' fontscale {} linewidth {} "
        "pointscale {} background rgb 'white'\n",
        kPngScale * width_, kPngScale * height_, kPngScale, kPngScale, kPngScale);
  }
  add("set encoding utf8\nset lmargin at screen {:.6f}\nset rmargin at screen {:.6f}\n", kLeft / width_,
      (kLeft + frame_width_) / width_);
  add("set tmargin at screen {:.6f}\nset bmargin at screen {:.6f}\n", 1 - kTop / height_, kBottom / height_);
  add("set border 3\nset tics nomirror out\nset grid lc rgb '#d8d8d8' lw 0.5 dt 1\nset format '%g'\n");
  add("set key at {} left bottom Left reverse samplen 5 spacing 1.3\n",
      screen(kLeft + frame_width_ + 25, height_ - kBottom));
}

void PlotScript::titles(const std::string& plot, const std::string& x, const std::string& y) {
  add("set label {} at {} left font ',14'\n", gnuplot_string(plot), screen(kLeft, kTop - 22));
  add("set xlabel {}\nset ylabel {}\n", gnuplot_string(x), gnuplot_string(y));
}

void PlotScript::axis(char name, const AxisRange& range) {
  add("set {}range [{:.17g}:{:.17g}]\n", name, range.least, range.most);
  if (!range.logarithmic) return;
  add("set logscale {}\n", name);
  // The fewer decades, the more numbers each has.
  const double ratio = range.most / range.least;
  std::vector<double> digits{1};
  if (ratio < 1e3) digits = {1, 2, 5};
  if (ratio < 15) digits = {1, 1.5, 2, 3, 4, 6, 8};
  std::string tics;
  for (int decade = static_cast<int>(std::floor(std::log10(range.least))); std::pow(10, decade) <= range.most;
       ++decade) {
    for (const double digit : digits) tics += fmt::format("{}{}e{}", tics.empty() ? "" : ", ", digit, decade);
  }
  add("set {}tics ({})\n", name, tics);
}

void PlotScript::block(const std::string& name, const std::vector<PlotPoint>& points) {
  add("${} << EOD\n", name);
  std::size_t number = 0;
  for (const PlotPoint& point : points) {
    add("{:.17g} {:.17g} {}\n", x_.drawn(point.x), y_.drawn(point.y), ++number);
  }
  add("EOD\n");
}

bool PlotScript::error_bars(const std::string& name, const std::vector<PlotPoint>& points) {
  std::string rows;
  for (const PlotPoint& point : points) {
    const double low = y_.drawn(point.y - point.half_width), high = point.y + point.half_width;
    if (pixel(0, low).y - pixel(0, high).y < 2 * kLeastBar) continue;
    rows += fmt::format("{:.17g} {:.17g} {:.17g}\n", x_.drawn(point.x), low, high);
  }
  if (!rows.empty()) add("${} << EOD\n{}EOD\n", name, rows);
  return !rows.empty();
}

// yerrorbars would leave a hole where the mark is.
std::string PlotScript::draw_error_bars(const std::string& name, const char* colour) {
  return fmt::format(
      "${} using 1:2:(0):($3-$2) with vectors heads size screen 0.003,90 lw 1.2 lc rgb '{}' notitle", name,
      colour);
}

void PlotScript::text_at(const LabelPlacer::Place& place, const Pixel& point, const std::string& text) {
  if (place.leader) {
    add("set arrow from {} to {} nohead front lw 0.7 lc rgb '#606060'\n", screen(point.x, point.y),
        screen(place.leader_end.x, place.leader_end.y));
  }
  add("set label {} at {} center front\n", gnuplot_string(text), screen(place.centre.x, place.centre.y));
}

Box PlotScript::frame() const { return {kLeft, kTop, kLeft + frame_width_, height_ - kBottom}; }

Pixel PlotScript::pixel(double x, double y) const {
  const Box box = frame();
  return {box.left + x_.position(x) * (box.right - box.left),
          box.bottom - y_.position(y) * (box.bottom - box.top)};
}

std::string PlotScript::screen(double x, double y) const {
  return fmt::format("screen {:.6f}, screen {:.6f}", x / width_, 1 - y / height_);
}

}  // namespace tq
