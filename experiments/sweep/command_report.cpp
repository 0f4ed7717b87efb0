#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <filesystem>

#include "core/error.h"
#include "datasets/atomic_file.h"
#include "experiments/command_line.h"
#include "experiments/commands.h"
#include "experiments/gnuplot.h"
#include "experiments/sweep/result_plots.h"
#include "experiments/sweep/sweep_report.h"

namespace tq {
namespace po = boost::program_options;

namespace {

using TextList = std::vector<std::string>;

struct PlotFile {
  std::string name, contents;
};

// As many of the front as a plot of layers can show, those with the fewest bytes: the bars of the others
// would be flat beside theirs.
std::vector<AveragedRow> low_rates(const ReportGroup& group, const ParetoPlot& plot) {
  std::vector<AveragedRow> rows;
  for (const std::size_t index : plot.front()) {
    if (rows.size() < LayerBarsPlot::kMostSeries) rows.push_back(group.front_candidates[index]);
  }
  return rows;
}

// gnuplot's commands for what the group has: its front, layers on the front, curves of alpha.
std::vector<std::pair<const char*, std::string>> plot_scripts(const ReportGroup& group) {
  std::vector<std::pair<const char*, std::string>> scripts;
  if (group.front_candidates.empty()) return scripts;
  const MetricInfo metric = result_metric(group.front_metric);
  const ParetoPlot pareto = pareto_of(group.front_candidates, "bytes_per_token", metric);
  scripts.emplace_back("pareto", pareto_script(pareto, PlotFormat::svg));
  const LayerBarsPlot layers = layers_of(low_rates(group, pareto), metric);
  if (!layers.layers.empty()) scripts.emplace_back("layers", layer_bars_script(layers, PlotFormat::svg));
  for (const char* y : {"softmax_kl", "key_relative_mse"}) {
    const AlphaPlot alphas = alphas_of(group.rows, result_metric(y));
    if (alphas.curves.empty() || alphas.curves.size() > AlphaPlot::kMostCurves) continue;
    scripts.emplace_back("alpha", alpha_script(alphas, PlotFormat::svg));
    break;
  }
  return scripts;
}

// Named after the report: STEM-pareto-1.svg and so on. Numbers are worth reading without them.
std::vector<std::vector<PlotFile>> draw(const std::vector<ReportGroup>& groups, const std::string& stem) {
  std::vector<std::vector<PlotFile>> files;
  try {
    for (const ReportGroup& group : groups) {
      std::vector<PlotFile>& of_group = files.emplace_back();
      for (const auto& [kind, script] : plot_scripts(group)) {
        of_group.push_back({fmt::format("{}-{}-{}.svg", stem, kind, files.size()), run_gnuplot(script)});
      }
    }
  } catch (const SystemError& error) {
    spdlog::warn("the report is written without plots: {}", error.what());
    files.clear();
  }
  files.resize(groups.size());
  return files;
}

std::vector<AveragedRow> all_rows(const std::vector<ReportGroup>& groups) {
  std::vector<AveragedRow> rows;
  for (const ReportGroup& group : groups) rows.insert(rows.end(), group.rows.begin(), group.rows.end());
  return rows;
}

// Whether all figures are within their tolerance, or have a note why they are not.
bool hold(const std::vector<ComparedFigure>& figures) {
  const auto count = [&](PublishedVerdict verdict) {
    return std::count_if(figures.begin(), figures.end(),
                         [&](const ComparedFigure& figure) { return figure.verdict == verdict; });
  };
  const auto differ = count(PublishedVerdict::differs), missing = count(PublishedVerdict::not_measured);
  if (differ + missing == 0) return true;
  spdlog::warn("of {} published figures {} differ without a note, {} were not measured", figures.size(),
               differ, missing);
  return false;
}

}  // namespace

ExitCode run_report(const Arguments& arguments) {
  CommandLine line(
      "report",
      "a sweep's results as Markdown: what was measured, the Pareto front, all rows, and how they "
      "stand to published figures; exit code 1 where a figure differs without a note, or was not "
      "measured",
      "tq report values --out report.md --published experiments/configs/values.published.json");
  line.add()("dir", po::value<std::string>()->value_name("DIR"), "a sweep's folder")(
      "out", po::value<std::string>()->value_name("FILE"),
      "the report, *.md, and beside it its plots as SVG (gnuplot draws them); by default the report goes to "
      "stdout, without plots")("published", po::value<std::string>()->value_name("FILE"),
                               "JSON, an array of figures, as: {\"where\": {\"d\": 128, \"value-bits\": 2}, "
                               "\"metric\": \"value_cosine\", "
                               "\"value\": 0.9329, \"tolerance\": 0.0005, \"source\": \"table 1\", \"note\": "
                               "\"why ours is another\"}; "
                               "relative_tolerance instead of tolerance for a share of the value");
  line.positional({"dir"});
  if (!line.parse(arguments)) return ExitCode::done;
  const std::string& folder = line.required("dir");
  const std::filesystem::path out = line.given("out") ? line.get<std::string>("out") : "";
  if (!out.empty() && out.extension() != ".md")
    throw UsageError("--out {} does not end in .md", out.string());
  std::vector<ResultRow> rows = read_result_rows(folder);
  if (rows.empty()) throw InputError("{}: holds no results yet", folder);
  add_speeds(folder, rows);
  const std::vector<ReportGroup> groups = report_groups(rows);
  std::vector<ComparedFigure> figures;
  if (line.given("published")) {
    const std::string& path = line.get<std::string>("published");
    figures = compare_with_published(path, read_published_figures(path), all_rows(groups));
  }
  std::string text = fmt::format("# Results of a sweep\n\n{}", manifest_section(folder));
  if (!figures.empty()) text.append("\n").append(published_section(figures));
  std::vector<std::vector<PlotFile>> plots(groups.size());
  if (!out.empty()) plots = draw(groups, out.stem().string());
  for (std::size_t i = 0; i < groups.size(); ++i) {
    TextList names;
    for (const PlotFile& plot : plots[i]) names.push_back(plot.name);
    text.append("\n").append(group_section(groups[i], names));
  }
  if (out.empty()) {
    fmt::print("{}", text);
  } else {
    for (const std::vector<PlotFile>& of_group : plots) {
      for (const PlotFile& plot : of_group)
        write_file_atomically((out.parent_path() / plot.name).string(), plot.contents);
    }
    write_file_atomically(out.string(), text);  // last: it names the others
    fmt::print("{} is written\n", out.string());
  }
  return hold(figures) ? ExitCode::done : ExitCode::gate_failed;
}

}  // namespace tq
