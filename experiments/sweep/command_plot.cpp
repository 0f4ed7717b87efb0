#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <set>

#include "calibration/codecs/registry.h"
#include "core/error.h"
#include "datasets/atomic_file.h"
#include "experiments/command_line.h"
#include "experiments/commands.h"
#include "experiments/gnuplot.h"
#include "experiments/nearest_name.h"
#include "experiments/sweep/axes.h"
#include "experiments/sweep/pareto_plot.h"
#include "experiments/sweep/result_rows.h"
#include "experiments/table.h"

namespace tq {
namespace po = boost::program_options;

namespace {

using Json = nlohmann::ordered_json;
using Rows = std::vector<const ResultRow*>;
using TextList = std::vector<std::string>;

// Configurations that differ in their seed alone.
struct Candidate {
  const ResultRow* row;  // the first of them
  std::size_t seeds = 0;
  double x = 0, y = 0;  // means over seeds
};

PlotFormat format_of(const std::string& path) {
  const std::string extension = std::filesystem::path(path).extension().string();
  if (extension == ".svg") return PlotFormat::svg;
  if (extension == ".png") return PlotFormat::png;
  throw UsageError("--out {} ends in neither .svg nor .png", path);
}

std::string x_key(const std::string& name) {
  if (name == "bytes") return "bytes_per_token";
  if (name == "padded") return "padded_bytes_per_token";
  throw UsageError("--x '{}' is unknown; choose one of: bytes, padded", name);
}

// The metrics that some row with bytes has.
TextList measured_metrics(const std::vector<ResultRow>& rows, const std::string& x) {
  TextList names;
  for (const MetricInfo& metric : result_metrics()) {
    if (metric.key.find("bytes") != std::string::npos || metric.key.find("compression") != std::string::npos)
      continue;
    if (std::any_of(rows.begin(), rows.end(), [&](const ResultRow& row) {
          return row.values.contains(x) && row.values.contains(metric.key);
        }))
      names.push_back(metric.key);
  }
  return names;
}

std::string y_key(const CommandLine& line, const TextList& measured) {
  if (!line.given("y")) {
    for (const char* name : {"output_error", "softmax_kl", "value_relative_mse"}) {
      if (std::find(measured.begin(), measured.end(), name) != measured.end()) return name;
    }
    return measured.front();
  }
  const std::string& name = line.get<std::string>("y");
  if (std::find(measured.begin(), measured.end(), name) == measured.end()) {
    throw UsageError("--y '{}' is nothing that was measured there; did you mean '{}'?", name,
                     nearest_name(name, measured));
  }
  return name;
}

Rows chosen_rows(const CommandLine& line, const std::vector<ResultRow>& rows) {
  Rows chosen;
  for (const ResultRow& row : rows) chosen.push_back(&row);
  if (!line.given("only")) return chosen;
  for (const std::string& rule : line.get<TextList>("only")) {
    const std::size_t equals = rule.find('=');
    if (equals == std::string::npos) throw UsageError("--only '{}' is not axis=value,...", rule);
    const Axis axis = axis_named(std::string_view(rule).substr(0, equals));
    const TextList values = value_list(axis, std::string_view(rule).substr(equals + 1));
    std::erase_if(chosen, [&](const ResultRow* row) {
      return std::find(values.begin(), values.end(), row->axis(info(axis).name)) == values.end();
    });
  }
  return chosen;
}

// A front over several inputs would say nothing of any of them.
void require_one_input(const Rows& rows) {
  for (const Axis axis : {Axis::source, Axis::d, Axis::rows, Axis::queries}) {
    std::set<std::string> values;
    for (const ResultRow* row : rows) values.insert(row->axis(info(axis).name));
    if (values.size() > 1) {
      throw UsageError("the results are of several inputs; choose one with --only {}={}", info(axis).name,
                       *values.rbegin());
    }
  }
}

std::vector<Candidate> average_over_seeds(const Rows& rows, const std::string& x, const MetricInfo& y) {
  std::vector<Candidate> candidates;
  std::map<std::string, std::size_t> index;
  for (const ResultRow* row : rows) {
    const auto at_x = row->values.find(x), at_y = row->values.find(y.key);
    if (at_x == row->values.end() || at_y == row->values.end()) continue;
    Json without_seed = row->configuration;
    without_seed.erase(info(Axis::seed).name);
    const auto [place, is_new] = index.emplace(row->capture_sha256 + without_seed.dump(), candidates.size());
    if (is_new) candidates.push_back({row});
    Candidate& candidate = candidates[place->second];
    ++candidate.seeds;
    candidate.x += at_x->second.mean;
    candidate.y += at_y->second.mean;
  }
  for (Candidate& candidate : candidates) {
    candidate.x /= static_cast<double>(candidate.seeds);
    candidate.y /= static_cast<double>(candidate.seeds);
    if (y.better == Better::nearer_zero) candidate.y = std::fabs(candidate.y);
  }
  return candidates;
}

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

// As in "keys prod 3 orthogonal mse, values group 2/32, nc": what of it varies.
std::string label_of(const ResultRow& row, const TextList& varying) {
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

std::string y_title(const MetricInfo& metric) {
  std::string title = metric.better == Better::nearer_zero ? "|" + metric.title + "|" : metric.title;
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
      return title + ": higher is better";
    case Better::unknown:
      break;
  }
  return title;
}

std::string title_of(const std::vector<Candidate>& candidates) {
  const ResultRow& row = *candidates.front().row;
  std::string title = fmt::format("{} configurations on {}", candidates.size(), row.axis("source"));
  if (const std::string d = row.axis("d"); !d.empty()) title += ", d = " + d;
  std::set<std::size_t> seeds;
  for (const Candidate& candidate : candidates) seeds.insert(candidate.seeds);
  if (*seeds.rbegin() > 1) title += fmt::format(", means of up to {} seeds", *seeds.rbegin());
  return title;
}

ParetoPlot make_plot(const std::vector<Candidate>& candidates, const std::string& x, const MetricInfo& y) {
  Rows rows;
  for (const Candidate& candidate : candidates) rows.push_back(candidate.row);
  const TextList varying = varying_axes(rows);
  ParetoPlot plot;
  plot.title = title_of(candidates);
  const bool padded = x == "padded_bytes_per_token";
  plot.x_title = fmt::format("KV cache, bytes a token{} (what is quantised, all layers and heads)",
                             padded ? ", key indices at no fewer than 4 bits" : "");
  plot.y_title = y_title(y);
  plot.x_name = "bytes";
  plot.y_name = y.better == Better::nearer_zero ? "|y|" : "y";
  plot.less_is_better = y.better != Better::higher;
  for (const Candidate& candidate : candidates) {
    const std::string group = group_of(*candidate.row);
    auto place = std::find(plot.groups.begin(), plot.groups.end(), group);
    if (place == plot.groups.end()) place = plot.groups.insert(place, group);
    plot.points.push_back({candidate.x, candidate.y, static_cast<std::size_t>(place - plot.groups.begin()),
                           label_of(*candidate.row, varying)});
  }
  return plot;
}

void print_json(const ParetoPlot& plot, const std::vector<Candidate>& candidates, const std::string& x,
                const std::string& y) {
  const std::vector<std::size_t> front = plot.front();
  Json points = Json::array(), on_front = Json::array();
  for (const std::size_t index : front) on_front.push_back(index);
  for (std::size_t i = 0; i < candidates.size(); ++i) {
    Json configuration = candidates[i].row->configuration;
    configuration.erase(info(Axis::seed).name);
    points.push_back({{"x", candidates[i].x},
                      {"y", candidates[i].y},
                      {"seeds", candidates[i].seeds},
                      {"label", plot.points[i].label},
                      {"configuration", configuration}});
  }
  fmt::print("{}\n", Json{{"x", x}, {"y", y}, {"points", points}, {"front", on_front}}.dump(2));
}

void print_text(const ParetoPlot& plot, const std::string& y, const std::string& out) {
  Table table({"", "bytes", y, "configuration"});
  std::size_t number = 0;
  for (const std::size_t index : plot.front()) {
    const PlotPoint& point = plot.points[index];
    table.row({fmt::format("{}", ++number), fmt::format("{:g}", point.x), fmt::format("{:.4g}", point.y),
               point.label});
  }
  fmt::print("The Pareto front of {} configurations:\n\n{}\n{} is written\n", plot.points.size(),
             table.text(), out);
}

}  // namespace

ExitCode run_plot(const Arguments& arguments) {
  CommandLine line("plot",
                   "draw a sweep's bytes a token against a metric, with the Pareto front (needs gnuplot)",
                   "tq plot sweep-results --out pareto.svg --y softmax_kl");
  line.add()("dir", po::value<std::string>()->value_name("DIR"), "a sweep's folder")(
      "out", po::value<std::string>()->value_name("FILE"), "the plot, *.svg or *.png")(
      "x", po::value<std::string>()->default_value("bytes")->value_name("NAME"),
      "bytes, or padded: key indices at no fewer than four bits, as upstream counts them")(
      "y", po::value<std::string>()->value_name("METRIC"),
      "a metric by its name in results.jsonl, by default output_error where it was measured")(
      "only", po::value<TextList>()->composing()->value_name("AXIS=V,..."),
      "leave out what has other values of an axis; may be repeated")(
      "json", po::bool_switch(), "all points, and which are on the front, as JSON instead of text");
  line.positional({"dir"});
  if (!line.parse(arguments)) return ExitCode::done;
  const std::string &folder = line.required("dir"), &out = line.required("out");
  const PlotFormat format = format_of(out);
  const std::string x = x_key(line.get<std::string>("x"));
  const std::vector<ResultRow> rows = read_result_rows(folder);
  const TextList measured = measured_metrics(rows, x);
  if (measured.empty()) throw InputError("{}: no result has bytes a token; there is nothing to plot", folder);
  const MetricInfo y = result_metric(y_key(line, measured));
  const Rows chosen = chosen_rows(line, rows);
  const std::vector<Candidate> candidates = average_over_seeds(chosen, x, y);
  if (candidates.empty()) throw UsageError("--only leaves no result with {}", y.key);
  Rows plotted;
  for (const Candidate& candidate : candidates) plotted.push_back(candidate.row);
  require_one_input(plotted);
  const ParetoPlot plot = make_plot(candidates, x, y);
  write_file_atomically(out, run_gnuplot(pareto_script(plot, format)));
  if (line.get<bool>("json")) {
    print_json(plot, candidates, x, y.key);
  } else {
    print_text(plot, y.key, out);
  }
  return ExitCode::done;
}

}  // namespace tq
