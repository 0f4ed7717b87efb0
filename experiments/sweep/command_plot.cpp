#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "core/error.h"
#include "datasets/atomic_file.h"
#include "experiments/bench/roofline_plot.h"
#include "experiments/bench/size_plot.h"
#include "experiments/command_line.h"
#include "experiments/commands.h"
#include "experiments/gnuplot.h"
#include "experiments/nearest_name.h"
#include "experiments/sweep/axes.h"
#include "experiments/sweep/result_plots.h"
#include "experiments/table.h"

namespace tq {
namespace po = boost::program_options;

namespace {

using Json = nlohmann::ordered_json;
using Rows = std::vector<const ResultRow*>;
using TextList = std::vector<std::string>;

enum class PlotKind { pareto, layers, alpha };

PlotKind kind_named(const std::string& name) {
  if (name == "pareto") return PlotKind::pareto;
  if (name == "layers") return PlotKind::layers;
  if (name == "alpha") return PlotKind::alpha;
  if (name == "size") throw UsageError("--kind size is for the file that tq bench --json writes");
  throw UsageError("--kind '{}' is unknown; choose one of: pareto, layers, alpha, size", name);
}

std::string x_key(const std::string& name) {
  if (name == "bytes") return "bytes_per_token";
  if (name == "padded") return "padded_bytes_per_token";
  throw UsageError("--x '{}' is unknown; choose one of: bytes, padded", name);
}

// What a row offers for such a plot: its metrics, or those of its layers.
TextList metrics_of(const ResultRow& row, PlotKind kind, const std::string& x) {
  switch (kind) {
    case PlotKind::pareto:
      return row.values.contains(x) ? plottable_metrics(row.values) : TextList();
    case PlotKind::layers:
      return row.layers.empty() ? TextList() : plottable_metrics(row.layers.front().values);
    case PlotKind::alpha:
      return row.axis("alpha").empty() ? TextList() : plottable_metrics(row.values);
  }
  return {};
}

std::string y_key(const CommandLine& line, PlotKind kind, const TextList& measured) {
  if (!line.given("y")) {
    const TextList preferred = kind == PlotKind::alpha ? TextList{"softmax_kl", "key_relative_mse"}
                                                       : TextList{"output_error", "softmax_kl",
                                                                  "value_relative_mse", "key_relative_mse"};
    for (const std::string& name : preferred) {
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
void require_one_input(const std::vector<AveragedRow>& rows) {
  for (const Axis axis : {Axis::source, Axis::d, Axis::rows, Axis::queries}) {
    std::set<std::string> values;
    for (const AveragedRow& row : rows) values.insert(row.row.axis(info(axis).name));
    if (values.size() > 1) {
      throw UsageError("the results are of several inputs; choose one with --only {}={}", info(axis).name,
                       *values.rbegin());
    }
  }
}

void require_few(std::size_t count, std::size_t most, const char* what, const TextList& varying) {
  if (count <= most) return;
  std::string names;
  for (const std::string& axis : varying) names += (names.empty() ? "" : ", ") + axis;
  throw UsageError("{} {} are more than the {} that a plot can show; choose with --only, by {}", count, what,
                   most, names);
}

Json to_json(const PlotPoint& point) {
  return {{"x", point.x}, {"y", point.y}, {"half_width", point.half_width}};
}

Json to_json(const ParetoPlot& plot, const std::vector<AveragedRow>& rows) {
  Json points = Json::array(), on_front = Json::array();
  for (const std::size_t index : plot.front()) on_front.push_back(index);
  for (std::size_t i = 0; i < rows.size(); ++i) {
    Json point = to_json(plot.points[i].at);
    point["seeds"] = rows[i].seeds;
    point["label"] = plot.points[i].label;
    point["configuration"] = rows[i].row.configuration;
    points.push_back(point);
  }
  return {{"points", points}, {"front", on_front}};
}

Json to_json(const LayerBarsPlot& plot) {
  Json series = Json::array();
  for (const LayerSeries& each : plot.series) {
    Json bars = Json::array();
    for (const PlotPoint& bar : each.bars) {
      bars.push_back({{"layer", plot.layers[static_cast<std::size_t>(bar.x)]},
                      {"y", bar.y},
                      {"half_width", bar.half_width}});
    }
    series.push_back({{"label", each.label}, {"bars", bars}});
  }
  return {{"series", series}};
}

Json to_json(const AlphaPlot& plot) {
  Json curves = Json::array();
  for (const AlphaCurve& curve : plot.curves) {
    Json points = Json::array(), targets = Json::array();
    for (const PlotPoint& point : curve.points) points.push_back(to_json(point));
    for (const AlphaTargetPoint& target : curve.targets) {
      Json entry{{"target", target.name}};
      entry.update(to_json(target.at));
      targets.push_back(entry);
    }
    curves.push_back({{"label", curve.label}, {"points", points}, {"targets", targets}});
  }
  return {{"curves", curves}};
}

std::string text_of(const ParetoPlot& plot, const std::string& y) {
  Table table({"", "bytes", y, "configuration"});
  std::size_t number = 0;
  for (const std::size_t index : plot.front()) {
    const ParetoPoint& point = plot.points[index];
    table.row({fmt::format("{}", ++number), fmt::format("{:g}", point.at.x),
               fmt::format("{:.4g}", point.at.y), point.label});
  }
  return fmt::format("The Pareto front of {} configurations:\n\n{}", plot.points.size(), table.text());
}

std::string text_of(const LayerBarsPlot& plot) {
  Table table({"configuration", "least", "layer", "most", "layer"});
  for (const LayerSeries& series : plot.series) {
    if (series.bars.empty()) continue;
    const auto [least, most] =
        std::minmax_element(series.bars.begin(), series.bars.end(),
                            [](const PlotPoint& a, const PlotPoint& b) { return a.y < b.y; });
    const auto layer = [&](const PlotPoint& bar) {
      return fmt::format("{}", plot.layers[static_cast<std::size_t>(bar.x)]);
    };
    table.row({series.label, fmt::format("{:.4g}", least->y), layer(*least), fmt::format("{:.4g}", most->y),
               layer(*most)});
  }
  return fmt::format("{}, {} layers:\n\n{}", plot.y_title, plot.layers.size(), table.text());
}

std::string text_of(const AlphaPlot& plot) {
  Table table({"curve", "alpha from", "alpha", "y"});
  for (const AlphaCurve& curve : plot.curves) {
    std::string label = curve.label;
    const auto row = [&](const std::string& from, const PlotPoint& at) {
      table.row({label, from, fmt::format("{:.4g}", at.x), fmt::format("{:.4g}", at.y)});
      label.clear();
    };
    for (const PlotPoint& point : curve.points) row("sweep", point);
    for (const AlphaTargetPoint& target : curve.targets) row(target.name, target.at);
  }
  return fmt::format("y: {}\n\n{}", plot.y_title, table.text());
}

struct Drawn {
  std::string script, text;
  Json json;
};

Drawn draw(PlotKind kind, const std::vector<AveragedRow>& rows, const std::string& x, const MetricInfo& y,
           PlotFormat format) {
  switch (kind) {
    case PlotKind::pareto: {
      const ParetoPlot plot = pareto_of(rows, x, y);
      return {pareto_script(plot, format), text_of(plot, y.key), to_json(plot, rows)};
    }
    case PlotKind::layers: {
      require_few(rows.size(), LayerBarsPlot::kMostSeries, "configurations", varying_axes(rows));
      const LayerBarsPlot plot = layers_of(rows, y);
      return {layer_bars_script(plot, format), text_of(plot), to_json(plot)};
    }
    case PlotKind::alpha: {
      const AlphaPlot plot = alphas_of(rows, y);
      if (plot.curves.empty()) {
        throw UsageError(
            "no alpha there is a number, so there is no curve; measure some with: tq sweep --alpha "
            "0.4,0.6,0.8,1,1.2");
      }
      require_few(plot.curves.size(), AlphaPlot::kMostCurves, "curves", varying_axes(rows));
      return {alpha_script(plot, format), text_of(plot), to_json(plot)};
    }
  }
  return {};
}

// A bench's file: against the read probe, or with --kind size against a size of the input.
void plot_bench(const CommandLine& line, const std::string& path, const std::string& out) {
  const bool sizes = line.given("kind") && line.get<std::string>("kind") == "size";
  for (const char* option : {"kind", "x", "y", "only"}) {
    const bool fits = sizes && (option == std::string_view("kind") || option == std::string_view("x"));
    if (line.given(option) && !fits) throw UsageError("--{} is for a sweep; {} is a file", option, path);
  }
  const bench::BenchFile file = bench::read_bench_file(path);
  const auto finish = [&](const std::string& script, const std::string& text, const Json& json) {
    write_file_atomically(out, run_gnuplot(script));
    if (line.get<bool>("json")) {
      fmt::print("{}\n", json.dump(2));
    } else {
      fmt::print("{}\n{} is written\n", text, out);
    }
  };
  if (sizes) {
    const std::string x = line.given("x") ? line.get<std::string>("x") : "tokens";
    const bench::SizePlot plot = bench::sizes_of(file, path, x);
    finish(bench::size_script(plot, plot_format_of(out)), bench::size_text(plot), bench::to_json(plot));
  } else {
    const bench::RooflinePlot plot = bench::roofline_of(file, path);
    finish(bench::roofline_script(plot, plot_format_of(out)), bench::roofline_text(plot),
           bench::to_json(plot));
  }
}

}  // namespace

ExitCode run_plot(const Arguments& arguments) {
  CommandLine line("plot",
                   "draw a sweep's results, or a bench's attention beside the read probe (needs gnuplot)",
                   "tq plot sweep-results --out pareto.svg --y softmax_kl\n"
                   "         tq plot sweep-results --kind layers --out layers.svg --only key-mode=prod "
                   "--only key-bits=3 \\\n"
                   "             --only value-mode=rotated --only value-bits=3 --only scale=nc\n"
                   "         tq plot alpha-results --kind alpha --out alpha.png --y softmax_kl\n"
                   "         tq plot bench.json --out attend.svg\n"
                   "         tq plot bench.json --kind size --x batch --out batch.svg");
  line.add()("dir", po::value<std::string>()->value_name("DIR|FILE"),
             "a sweep's folder, or what tq bench wrote")("out", po::value<std::string>()->value_name("FILE"),
                                                         "the plot, *.svg or *.png")(
      "kind", po::value<std::string>()->default_value("pareto")->value_name("NAME"),
      "pareto: bytes a token against a metric, with the Pareto front and, where one side of the cache alone "
      "is "
      "quantised, the rate-distortion bound; layers: bars of a metric, up to 8 configurations of a capture "
      "side "
      "by side; alpha: a metric against alpha, a curve a sketch and number of bits; size, of a bench's file: "
      "attention "
      "against a size of its input")("x",
                                     po::value<std::string>()->default_value("bytes")->value_name("NAME"),
                                     "pareto: bytes, or padded: key indices at no fewer than four bits, as "
                                     "upstream counts them; size: tokens (by "
                                     "default), batch or d")(
      "y", po::value<std::string>()->value_name("METRIC"),
      "a metric by its name in results.jsonl, by default output_error (alpha: softmax_kl) where it was "
      "measured")("only", po::value<TextList>()->composing()->value_name("AXIS=V,..."),
                  "leave out what has other values of an axis; may be repeated")(
      "json", po::bool_switch(),
      "all that is drawn, and which points are on the front, as JSON instead of text");
  line.positional({"dir"});
  if (!line.parse(arguments)) return ExitCode::done;
  const std::string &folder = line.required("dir"), &out = line.required("out");
  const PlotFormat format = plot_format_of(out);
  if (bench::is_file(folder)) {
    plot_bench(line, folder, out);
    return ExitCode::done;
  }
  const PlotKind kind = kind_named(line.get<std::string>("kind"));
  if (kind != PlotKind::pareto && line.given("x")) throw UsageError("--x is for --kind pareto");
  const std::string x = x_key(line.get<std::string>("x"));
  const std::vector<ResultRow> rows = read_result_rows(folder);
  Rows chosen = chosen_rows(line, rows);
  if (chosen.empty() && !rows.empty()) throw UsageError("--only leaves no result");
  TextList measured;
  for (const MetricInfo& metric : result_metrics()) {
    if (std::any_of(chosen.begin(), chosen.end(), [&](const ResultRow* row) {
          const TextList names = metrics_of(*row, kind, x);
          return std::find(names.begin(), names.end(), metric.key) != names.end();
        }))
      measured.push_back(metric.key);
  }
  if (measured.empty()) {
    throw InputError("{}: no result has {}; there is nothing to plot", folder,
                     kind == PlotKind::pareto   ? "bytes a token"
                     : kind == PlotKind::layers ? "layers (captures have)"
                                                : "an alpha (prod keys have)");
  }
  const MetricInfo y = result_metric(y_key(line, kind, measured));
  std::erase_if(chosen, [&](const ResultRow* row) {
    const TextList names = metrics_of(*row, kind, x);
    return std::find(names.begin(), names.end(), y.key) == names.end();
  });
  const std::vector<AveragedRow> averaged = average_over_seeds(chosen);
  require_one_input(averaged);
  const Drawn drawn = draw(kind, averaged, x, y, format);
  write_file_atomically(out, run_gnuplot(drawn.script));
  if (line.get<bool>("json")) {
    Json json{{"x", kind == PlotKind::pareto   ? x
                    : kind == PlotKind::layers ? "layer"
                                               : "alpha"},
              {"y", y.key}};
    json.update(drawn.json);
    fmt::print("{}\n", json.dump(2));
  } else {
    fmt::print("{}\n{} is written\n", drawn.text, out);
  }
  return ExitCode::done;
}

}  // namespace tq
