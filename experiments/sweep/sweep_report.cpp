#include "experiments/sweep/sweep_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <set>

#include "core/error.h"
#include "experiments/markdown.h"
#include "experiments/sweep/axes.h"
#include "experiments/sweep/result_log.h"
#include "experiments/sweep/result_plots.h"
#include "experiments/sweep/timings.h"

namespace tq {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;
using TextList = std::vector<std::string>;

std::string group_name(const ResultRow& row) {
  std::string name;
  const auto add = [&](const char* axis) {
    if (const std::string value = row.axis(axis); !value.empty())
      name += fmt::format("{}{} {}", name.empty() ? "" : ", ", axis, value);
  };
  if (!row.axis("measure").empty()) {  // one table for all sizes
    add("measure");
    add("source");  // "" where there are no data
    return name;
  }
  for (const char* axis : {"source", "d", "rows", "queries"}) add(axis);
  // Bytes of one side of the cache are no match for those of both.
  if (row.axis("value-mode") == kNone) name += ", keys alone";
  if (row.axis("key-mode") == kNone) name += ", values alone";
  return name;
}

void choose_front(ReportGroup& group) {
  for (const char* metric : {"output_error", "softmax_kl", "value_relative_mse", "key_relative_mse"}) {
    for (const AveragedRow& row : group.rows) {
      if (row.row.values.contains("bytes_per_token") && row.row.values.contains(metric))
        group.front_candidates.push_back(row);
    }
    if (group.front_candidates.empty()) continue;
    group.front_metric = metric;
    return;
  }
}

// Of bytes and ratios there is no more to say than the number.
bool is_plain(const std::string& key) {
  return key.find("bytes") != std::string::npos || key.find("compression") != std::string::npos;
}

// Known metrics in their order, then what else there is. Padded bytes only where they are others.
TextList columns_of(const std::vector<AveragedRow>& rows) {
  std::set<std::string> present;
  bool padded = false;
  for (const AveragedRow& row : rows) {
    const ResultValues& values = row.row.values;
    for (const auto& [name, value] : values) present.insert(name);
    const auto bytes = values.find("bytes_per_token"), with_padding = values.find("padded_bytes_per_token");
    padded = padded || (bytes != values.end() && with_padding != values.end() &&
                        bytes->second.mean != with_padding->second.mean);
  }
  present.erase("fp16_bytes_per_token");  // compression says it
  if (!padded) {
    present.erase("padded_bytes_per_token");
    present.erase("padded_compression");
  }
  TextList columns;
  for (const MetricInfo& metric : result_metrics()) {
    if (present.erase(metric.key) > 0) columns.push_back(metric.key);
  }
  columns.insert(columns.end(), present.begin(), present.end());
  return columns;
}

std::string cell(const ResultRow& row, const std::string& column) {
  const auto value = row.values.find(column);
  if (value == row.values.end()) return "-";
  if (column.find("compression") != std::string::npos) return fmt::format("{:.2f}x", value->second.mean);
  if (is_plain(column)) return fmt::format("{:g}", value->second.mean);
  return to_string(value->second, "±");
}

// All numbers of the rows; what stands before them says which row it is.
class ResultTable {
 public:
  ResultTable(TextList names, const std::vector<AveragedRow>& rows)
      : columns_(columns_of(rows)), table_(header(std::move(names), columns_)) {}

  void row(TextList cells, const ResultRow& row) {
    for (const std::string& column : columns_) cells.push_back(cell(row, column));
    table_.row(cells);
  }
  const std::string& text() const { return table_.text(); }

 private:
  static TextList header(TextList names, const TextList& columns) {
    for (const std::string& column : columns) names.push_back(markdown_text(result_metric(column).title));
    return names;
  }

  TextList columns_;
  MarkdownTable table_;
};

std::string front_table(const ReportGroup& group) {
  const ParetoPlot plot =
      pareto_of(group.front_candidates, "bytes_per_token", result_metric(group.front_metric));
  ResultTable table({"", "configuration"}, group.front_candidates);
  std::size_t number = 0;
  for (const std::size_t index : plot.front()) {
    table.row({fmt::format("{}", ++number), markdown_text(plot.points[index].label)},
              group.front_candidates[index].row);
  }
  return table.text();
}

std::string whole_table(const ReportGroup& group) {
  TextList varying = varying_axes(group.rows);
  if (varying.empty()) varying = {"key-mode", "value-mode"};
  ResultTable table(varying, group.rows);
  for (const AveragedRow& row : group.rows) {
    TextList cells;
    for (const std::string& axis : varying) {
      const std::string value = row.row.axis(axis);
      cells.push_back(value.empty() ? "-" : markdown_text(value));
    }
    table.row(cells, row.row);
  }
  return table.text();
}

std::string half_width_sentence(const ReportGroup& group) {
  std::set<std::size_t> seeds;
  for (const AveragedRow& row : group.rows) seeds.insert(row.seeds);
  if (seeds == std::set<std::size_t>{1})
    return "±: half of the 95 % interval over the vectors or the queries of one seed.";
  return fmt::format("Means of up to {} seeds; ±: half of the 95 % interval over them (Student's t){}.",
                     *seeds.rbegin(),
                     seeds.contains(1) ? ", of a row with one seed over its vectors or queries" : "");
}

// "-" for what a manifest of another version lacks.
std::string field(const Json& object, const char* name) {
  if (!object.is_object() || !object.contains(name) || object[name].is_null()) return "-";
  const Json& value = object[name];
  if (value.is_number_float()) return fmt::format("{:.1f}", value.get<double>());
  return value.is_string() ? markdown_text(value.get<std::string>()) : markdown_text(value.dump());
}

void add_speed(ResultRow& row, const CodecTimes& times, const char* side) {
  for (const auto& [seconds, title] :
       {std::pair(times.encode_seconds, "encode"), std::pair(times.decode_seconds, "decode"),
        std::pair(times.one_pass_seconds, "encode and decode")}) {
    if (!(seconds > 0)) continue;
    const double speed = static_cast<double>(times.vectors) / seconds / 1e6;
    row.values[fmt::format("{} {}, M vectors/s", side, title)] = {speed, std::nullopt};
  }
}

}  // namespace

std::vector<ReportGroup> report_groups(const std::vector<ResultRow>& rows) {
  std::vector<std::string> names;
  std::map<std::string, std::vector<const ResultRow*>> members;
  for (const ResultRow& row : rows) {
    const std::string name = group_name(row);
    if (!members.contains(name)) names.push_back(name);
    members[name].push_back(&row);
  }
  std::vector<ReportGroup> groups;
  for (const std::string& name : names) {
    ReportGroup& group = groups.emplace_back(ReportGroup{name, average_over_seeds(members[name]), "", {}});
    choose_front(group);
  }
  return groups;
}

void add_speeds(const std::string& folder, std::vector<ResultRow>& rows) {
  const std::map<std::string, Timing> timings = read_timings(folder);
  for (ResultRow& row : rows) {
    const auto timing = timings.find(row.key);
    if (timing == timings.end()) continue;
    add_speed(row, timing->second.keys, "keys");
    add_speed(row, timing->second.values, "values");
  }
}

std::string manifest_section(const std::string& folder) {
  const std::string path = (fs::path(folder) / kManifestFile).string();
  std::ifstream file(path);
  if (!file) return "## What was measured\n\nThere is no manifest beside the results.\n";
  const Json manifest = Json::parse(file, nullptr, false);
  if (!manifest.is_object() || !manifest.contains("runs") || !manifest["runs"].is_array())
    throw InputError("{}: is no manifest of a sweep", path);
  MarkdownTable table({"begun (UTC)", "wall time, s", "measured", "version", "revision", "build", "machine",
                       "threads", "GPU"});
  std::string commands;
  std::set<std::string> inputs;
  for (const Json& run : manifest["runs"]) {
    const Json gpu = run.is_object() && run.contains("gpu") ? run["gpu"] : Json();
    table.row({field(run, "utc_start"), field(run, "wall_seconds"), field(run, "measured"),
               field(run, "tool_version"), field(run, "git_revision"),
               field(run, "build_type") + ", compiler " + field(run, "compiler"),
               field(run, "cpu") + ", " + field(run, "simd_target"), field(run, "threads"),
               gpu.is_object() ? field(gpu, "name") + ", NVRTC " + field(gpu, "nvrtc") : "-"});
    if (run.is_object() && run.contains("command_line") && run["command_line"].is_string()) {
      std::string command = run["command_line"].get<std::string>();
      std::replace_if(
          command.begin(), command.end(), [](unsigned char c) { return c < ' '; }, ' ');
      commands += "    " + command + "\n";
    }
    if (!run.is_object() || !run.contains("inputs") || !run["inputs"].is_array()) continue;
    for (const Json& input : run["inputs"]) {
      inputs.insert(fmt::format("- {}: SHA-256 {}\n", field(input, "source"), field(input, "sha256")));
    }
  }
  std::string text = "## What was measured\n\n" + table.text();
  if (!commands.empty()) text += "\n" + commands;
  if (!inputs.empty()) text += "\n";
  for (const std::string& input : inputs) text += input;
  return text;
}

std::string group_section(const ReportGroup& group, const TextList& plots) {
  std::string text = fmt::format("## {}\n\n{}\n", markdown_text(group.name), half_width_sentence(group));
  if (!group.front_candidates.empty()) {
    text += fmt::format("\n### Pareto front: bytes a token against {}\n\n{}",
                        markdown_text(result_metric(group.front_metric).title), front_table(group));
  }
  for (const std::string& plot : plots) text += fmt::format("\n![{}]({})\n", plot, plot);
  return text + fmt::format("\n### All {} configurations\n\n{}", group.rows.size(), whole_table(group));
}

std::string published_section(const std::vector<ComparedFigure>& figures) {
  MarkdownTable table(
      {"configuration", "figure", "ours", "published", "difference", "allowed", "verdict", "source", "note"});
  for (const ComparedFigure& each : figures) {
    const PublishedFigure& figure = each.figure;
    table.row({markdown_text(describe_where(figure)), markdown_text(result_metric(figure.metric).title),
               each.ours ? to_string(*each.ours, "±") : "-", fmt::format("{:.10g}", figure.value),
               each.ours ? fmt::format("{:+.4g}", each.ours->mean - figure.value) : "-",
               fmt::format("{:.3g}", figure.allowed), to_string(each.verdict), markdown_text(figure.source),
               markdown_text(figure.note)});
  }
  return "## Against published figures\n\n" + table.text();
}

}  // namespace tq
