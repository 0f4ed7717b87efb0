#include "experiments/sweep/result_plots.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <optional>
#include <set>

#include "calibration/codecs/registry.h"
#include "experiments/sweep/axes.h"

namespace tq {
namespace {

using TextList = std::vector<std::string>;

std::string side(const ResultRow& row, const char* name, const char* mode_axis) {
  const std::string mode = row.axis(mode_axis);
  return fmt::format("{} {}", name, mode.empty() || mode == kNone ? "exact" : mode);
}

// Baselines are one group: a mark each would leave none for the codecs.
std::string group_of(const ResultRow& row) {
  const auto mode = [&](const char* axis) {
    const std::string name = row.axis(axis);
    if (name.empty() || name == kNone) return std::string("exact");
    const StorageCodec* codec = storage_codec_named(name);
    return codec != nullptr && codec->baseline() ? std::string("baseline") : name;
  };
  const std::string keys = mode("key-mode"), values = mode("value-mode");
  return keys == "baseline" && values == "baseline" ? "baselines" : "keys " + keys + ", values " + values;
}

std::string y_title(const MetricInfo& metric, bool as_loss = false) {
  std::string title = metric.better == Better::nearer_zero ? "|" + metric.title + "|" : metric.title;
  if (as_loss) title = "1 - " + title;
  if (metric.key == "softmax_kl") {
    title += " (nats)";
  } else if (metric.key == "top1_agreement") {
    title += " (share of queries)";
  }
  switch (metric.better) {
    case Better::lower:
    case Better::nearer_zero:
      return title + ": lower is better";
    case Better::higher:
      return title + (as_loss ? ": lower is better" : ": higher is better");
    case Better::unknown:
      break;
  }
  return title;
}

std::string title_of(const std::vector<AveragedRow>& rows, const std::string& what) {
  const ResultRow& row = rows.front().row;
  const std::string model = row.axis("model");  // of perplexity, which has no source
  std::string title = fmt::format("{} on {}", what, model.empty() ? row.axis("source") : model);
  if (const std::string d = row.axis("d"); !d.empty()) title += ", d = " + d;
  std::size_t seeds = 0;
  for (const AveragedRow& each : rows) seeds = std::max(seeds, each.seeds);
  if (seeds > 1) title += fmt::format(", means of up to {} seeds", seeds);
  return title;
}

PlotPoint point_of(double x, const Estimate& y, Better better) {
  return {x, better == Better::nearer_zero ? std::fabs(y.mean) : y.mean, y.half_width.value_or(0)};
}

// Of the side that is quantised alone and that the metric is of.
std::optional<double> coordinates(const std::vector<AveragedRow>& rows, const std::string& metric) {
  const bool keys = metric == "key_relative_mse" || metric == "key_cosine";
  if (!keys && metric != "value_relative_mse" && metric != "value_cosine") return std::nullopt;
  std::optional<double> count;
  for (const AveragedRow& row : rows) {
    const auto fp16 = row.row.values.find("fp16_bytes_per_token");
    if (row.row.axis(keys ? "value-mode" : "key-mode") != kNone || fp16 == row.row.values.end())
      return std::nullopt;
    const double mine = fp16->second.mean / 2;
    if (!(mine > 0) || mine != count.value_or(mine)) return std::nullopt;
    count = mine;
  }
  return count;
}

void add_bound(ParetoPlot& plot, double coordinates) {
  const auto [least, most] =
      std::minmax_element(plot.points.begin(), plot.points.end(),
                          [](const ParetoPoint& a, const ParetoPoint& b) { return a.at.x < b.at.x; });
  constexpr int kSteps = 200;
  const double from = least->at.x, ratio = most->at.x / from;
  for (int i = 0; i <= kSteps && from > 0; ++i) {
    const double bytes = from * std::pow(ratio, static_cast<double>(i) / kSteps);
    const double left = std::pow(4.0, -8 * bytes / coordinates);
    plot.bound.push_back({bytes, plot.less_is_better ? left : std::sqrt(1 - left)});
  }
  plot.bound_title = plot.less_is_better ? "rate-distortion bound of a Gaussian source, 4^-R"
                                         : "rate-distortion bound of a Gaussian source, sqrt(1 - 4^-R)";
}

std::optional<double> as_number(const std::string& text) {
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || !std::isfinite(value)) return std::nullopt;
  return value;
}

}  // namespace

std::string configuration_label(const ResultRow& row, const TextList& varying) {
  std::string keys = side(row, "keys", "key-mode"), values = side(row, "values", "value-mode"), rest;
  if (const std::string bits = row.axis("key-bits"); !bits.empty()) keys += " " + bits;
  if (const std::string bits = row.axis("value-bits"); !bits.empty()) values += " " + bits;
  for (const std::string& axis : varying) {
    const std::string value = row.axis(axis);
    if (value.empty() || axis == "key-mode" || axis == "key-bits" || axis == "value-mode" ||
        axis == "value-bits" || axis == "seed")
      continue;
    if (axis == "sketch" || axis == "alpha") {
      keys += " " + value;
    } else if (axis == "group-size") {
      values += "/" + value;
    } else {
      rest += fmt::format(", {} {}", axis, value);
    }
  }
  return keys + ", " + values + rest;
}

TextList varying_axes(const std::vector<AveragedRow>& rows) {
  std::vector<const ResultRow*> pointers;
  for (const AveragedRow& row : rows) pointers.push_back(&row.row);
  return varying_axes(pointers);
}

TextList plottable_metrics(const ResultValues& values) {
  TextList names;
  for (const MetricInfo& metric : result_metrics()) {
    if (metric.key.find("bytes") != std::string::npos || metric.key.find("compression") != std::string::npos)
      continue;
    if (values.contains(metric.key)) names.push_back(metric.key);
  }
  return names;
}

ParetoPlot pareto_of(const std::vector<AveragedRow>& rows, const std::string& x, const MetricInfo& y) {
  const TextList varying = varying_axes(rows);
  ParetoPlot plot;
  plot.title = title_of(rows, fmt::format("{} configurations", rows.size()));
  const bool padded = x == "padded_bytes_per_token";
  plot.x_title = fmt::format("KV cache, bytes a token{} (what is quantised, all layers and heads)",
                             padded ? ", key indices at no fewer than 4 bits" : "");
  plot.y_title = y_title(y);
  plot.x_name = "bytes";
  plot.y_name = y.better == Better::nearer_zero ? "|y|" : "y";
  plot.less_is_better = y.better != Better::higher;
  for (const AveragedRow& row : rows) {
    const std::string group = group_of(row.row);
    auto place = std::find(plot.groups.begin(), plot.groups.end(), group);
    if (place == plot.groups.end()) place = plot.groups.insert(place, group);
    const ResultValues& values = row.row.values;
    plot.points.push_back({point_of(values.at(x).mean, values.at(y.key), y.better),
                           static_cast<std::size_t>(place - plot.groups.begin()),
                           configuration_label(row.row, varying)});
  }
  if (const auto count = coordinates(rows, y.key)) add_bound(plot, *count);
  return plot;
}

LayerBarsPlot layers_of(const std::vector<AveragedRow>& rows, const MetricInfo& y) {
  const TextList varying = varying_axes(rows);
  const bool as_loss = y.better == Better::higher;
  std::set<int> layers;
  for (const AveragedRow& row : rows) {
    for (const LayerValues& layer : row.row.layers) {
      if (layer.values.contains(y.key)) layers.insert(layer.layer);
    }
  }
  LayerBarsPlot plot;
  plot.title = title_of(rows, "Layer by layer");
  plot.y_title = y_title(y, as_loss);
  plot.layers.assign(layers.begin(), layers.end());
  for (const AveragedRow& row : rows) {
    LayerSeries& series = plot.series.emplace_back(LayerSeries{configuration_label(row.row, varying), {}});
    for (const LayerValues& layer : row.row.layers) {
      const auto value = layer.values.find(y.key);
      if (value == layer.values.end()) continue;
      PlotPoint bar = point_of(static_cast<double>(std::distance(layers.begin(), layers.find(layer.layer))),
                               value->second, y.better);
      if (as_loss) bar.y = 1 - bar.y;
      series.bars.push_back(bar);
    }
  }
  return plot;
}

AlphaPlot alphas_of(const std::vector<AveragedRow>& rows, const MetricInfo& y) {
  std::vector<ResultRow> curves;  // the first row of each, without its alpha
  std::vector<AlphaCurve> drawn;
  for (const AveragedRow& each : rows) {
    const std::string alpha = each.row.axis("alpha");
    const auto value = each.row.values.find(y.key), in_use = each.row.values.find("alpha");
    if (alpha.empty() || value == each.row.values.end()) continue;
    ResultRow row = each.row;
    row.configuration.erase("alpha");
    const auto same = std::find_if(curves.begin(), curves.end(), [&](const ResultRow& other) {
      return other.configuration == row.configuration && other.capture_sha256 == row.capture_sha256;
    });
    const std::size_t index = static_cast<std::size_t>(same - curves.begin());
    if (index == curves.size()) {
      curves.push_back(row);
      drawn.emplace_back();
    }
    AlphaCurve& curve = drawn[index];
    if (const auto number = as_number(alpha)) {
      curve.points.push_back(point_of(*number, value->second, y.better));
    } else if (in_use != each.row.values.end()) {
      curve.targets.push_back({alpha, point_of(in_use->second.mean, value->second, y.better)});
    }
  }
  AlphaPlot plot;
  plot.title = title_of(rows, fmt::format("{} against alpha", y.title));
  plot.y_title = y_title(y);
  std::vector<const ResultRow*> kept;
  for (std::size_t i = 0; i < drawn.size(); ++i) {
    if (drawn[i].points.empty()) continue;
    kept.push_back(&curves[i]);
    plot.curves.push_back(std::move(drawn[i]));
  }
  const TextList varying = varying_axes(kept);
  for (std::size_t i = 0; i < kept.size(); ++i) {
    AlphaCurve& curve = plot.curves[i];
    curve.label = configuration_label(*kept[i], varying);
    std::stable_sort(curve.points.begin(), curve.points.end(),
                     [](const PlotPoint& a, const PlotPoint& b) { return a.x < b.x; });
    std::stable_sort(curve.targets.begin(), curve.targets.end(),
                     [](const AlphaTargetPoint& a, const AlphaTargetPoint& b) { return a.at.x < b.at.x; });
  }
  return plot;
}

}  // namespace tq
