#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "experiments/bench/bench_file.h"
#include "experiments/bench/compare_bench.h"
#include "experiments/command_line.h"
#include "experiments/commands.h"
#include "experiments/sweep/result_rows.h"
#include "experiments/table.h"

namespace tq {
namespace po = boost::program_options;

namespace {

using Json = nlohmann::ordered_json;
using Rows = std::vector<const ResultRow*>;

// Rounding of another compiler or machine is no difference.
constexpr double kRounding = 1e-6;

enum class Verdict { worse, better, differs };

const char* to_string(Verdict verdict) {
  switch (verdict) {
    case Verdict::worse:
      return "worse";
    case Verdict::better:
      return "better";
    case Verdict::differs:
      return "differs";
  }
  return "";
}

struct Difference {
  std::string metric;
  std::optional<int> layer;      // none: of all layers
  std::optional<Estimate> a, b;  // none where it could not be measured
  double allowed = 0;
  Verdict verdict = Verdict::differs;
};

struct ChangedRow {
  const ResultRow* row;
  std::vector<Difference> differences;
};

struct Comparison {
  std::size_t matched = 0;
  std::vector<ChangedRow> changed;
  Rows only_in_a, only_in_b;

  std::size_t count(Verdict verdict) const {
    std::size_t count = 0;
    for (const ChangedRow& row : changed) {
      for (const Difference& difference : row.differences) count += difference.verdict == verdict ? 1 : 0;
    }
    return count;
  }
};

// How far apart two means may be: their half-widths taken together, and never less than rounding.
double allowed(const Estimate& a, const Estimate& b) {
  return std::max(std::hypot(a.half_width.value_or(0), b.half_width.value_or(0)),
                  kRounding * std::max(std::fabs(a.mean), std::fabs(b.mean)));
}

Verdict verdict(Better better, double a, double b, double allowed) {
  double harm = 0;
  switch (better) {
    case Better::lower:
      harm = b - a;
      break;
    case Better::higher:
      harm = a - b;
      break;
    case Better::nearer_zero:  // a change of sign alone is neither
      harm = std::fabs(b) - std::fabs(a);
      break;
    case Better::unknown:
      break;
  }
  if (harm > allowed) return Verdict::worse;
  return -harm > allowed ? Verdict::better : Verdict::differs;
}

std::optional<Difference> difference(const std::string& metric, const ResultValues& a,
                                     const ResultValues& b) {
  const auto in_a = a.find(metric), in_b = b.find(metric);
  Difference result;
  result.metric = metric;
  if (in_a != a.end()) result.a = in_a->second;
  if (in_b != b.end()) result.b = in_b->second;
  if (!result.a && !result.b) return std::nullopt;
  if (!result.a || !result.b) {  // not measured, or not a number any more
    result.verdict = result.a ? Verdict::worse : Verdict::better;
    return result;
  }
  result.allowed = allowed(*result.a, *result.b);
  if (!(std::fabs(result.b->mean - result.a->mean) > result.allowed)) return std::nullopt;
  result.verdict = verdict(result_metric(metric).better, result.a->mean, result.b->mean, result.allowed);
  return result;
}

// A layer can differ where the mean over all of them does not.
void add_layer_differences(const std::string& metric, const ResultRow& a, const ResultRow& b,
                           std::vector<Difference>& list) {
  for (const LayerValues& layer : a.layers) {
    const auto other = std::find_if(b.layers.begin(), b.layers.end(),
                                    [&](const LayerValues& each) { return each.layer == layer.layer; });
    if (other == b.layers.end()) continue;
    if (auto found = difference(metric, layer.values, other->values)) {
      found->layer = layer.layer;
      list.push_back(*found);
    }
  }
}

std::vector<Difference> differences(const ResultRow& a, const ResultRow& b) {
  std::vector<std::string> metrics;
  for (const MetricInfo& metric : result_metrics()) metrics.push_back(metric.key);
  for (const ResultRow* row : {&a, &b}) {
    for (const auto& [name, value] : row->values) {
      if (std::find(metrics.begin(), metrics.end(), name) == metrics.end()) metrics.push_back(name);
    }
  }
  std::vector<Difference> list;
  for (const std::string& metric : metrics) {
    if (auto found = difference(metric, a.values, b.values)) {
      list.push_back(*found);
    } else {
      add_layer_differences(metric, a, b, list);
    }
  }
  return list;
}

Comparison compare(const std::vector<ResultRow>& a, const std::vector<ResultRow>& b) {
  std::map<std::string_view, const ResultRow*> rest;
  for (const ResultRow& row : b) rest.emplace(row.key, &row);
  Comparison result;
  for (const ResultRow& row : a) {
    const auto other = rest.find(row.key);
    if (other == rest.end()) {
      result.only_in_a.push_back(&row);
      continue;
    }
    ++result.matched;
    if (auto list = differences(row, *other->second); !list.empty()) {
      result.changed.push_back({&row, std::move(list)});
    }
    rest.erase(other);
  }
  for (const ResultRow& row : b) {
    if (rest.contains(row.key)) result.only_in_b.push_back(&row);
  }
  return result;
}

Json to_json(const std::optional<Estimate>& estimate) {
  if (!estimate) return nullptr;
  return {{"mean", estimate->mean},
          {"half_width", estimate->half_width ? Json(*estimate->half_width) : Json(nullptr)}};
}

Json to_json(const Rows& rows) {
  Json list = Json::array();
  for (const ResultRow* row : rows) {
    list.push_back({{"key", row->key}, {"configuration", row->configuration}});
  }
  return list;
}

Json to_json(const Comparison& comparison) {
  Json changed = Json::array();
  for (const ChangedRow& row : comparison.changed) {
    Json metrics = Json::array();
    for (const Difference& difference : row.differences) {
      metrics.push_back({{"metric", difference.metric},
                         {"layer", difference.layer ? Json(*difference.layer) : Json(nullptr)},
                         {"a", to_json(difference.a)},
                         {"b", to_json(difference.b)},
                         {"allowed", difference.allowed},
                         {"verdict", to_string(difference.verdict)}});
    }
    changed.push_back(
        {{"key", row.row->key}, {"configuration", row.row->configuration}, {"differences", metrics}});
  }
  return {{"in_both", comparison.matched},
          {"worse", comparison.count(Verdict::worse)},
          {"better", comparison.count(Verdict::better)},
          {"changed", changed},
          {"only_in_a", to_json(comparison.only_in_a)},
          {"only_in_b", to_json(comparison.only_in_b)}};
}

std::string cell(const std::optional<Estimate>& estimate) {
  if (!estimate) return "-";
  if (!estimate->half_width) return fmt::format("{:.7g}", estimate->mean);
  return fmt::format("{:.6g} +- {:.2g}", estimate->mean, *estimate->half_width);
}

std::string label(const ResultRow& row, const std::vector<std::string>& varying) {
  std::string text;
  for (const std::string& axis : varying) {
    if (const std::string value = row.axis(axis); !value.empty()) {
      text += fmt::format("{}{}={}", text.empty() ? "" : " ", axis, value);
    }
  }
  return text.empty() ? row.key.substr(0, 12) : text;
}

void print_rows(const char* title, const Rows& rows, const std::vector<std::string>& varying) {
  if (rows.empty()) return;
  fmt::print("\n{}:\n", title);
  for (const ResultRow* row : rows) fmt::print("  {}\n", label(*row, varying));
}

void print_text(const Comparison& comparison, const std::vector<std::string>& varying) {
  if (!comparison.changed.empty()) {
    fmt::print(
        "Shown: means further apart than their 95 % half-widths, taken together as the root of the sum of\n"
        "squares, and than one part in a million; numbers without a half-width by the latter alone. Layers "
        "are\n"
        "shown where the mean over all of them does not differ.\n\n");
    Table table({"configuration", "metric", "A", "B", "B is"});
    for (const ChangedRow& row : comparison.changed) {
      std::string name = label(*row.row, varying);
      for (const Difference& difference : row.differences) {
        const std::string metric = difference.layer
                                       ? fmt::format("{}, layer {}", difference.metric, *difference.layer)
                                       : difference.metric;
        table.row({name, metric, cell(difference.a), cell(difference.b), to_string(difference.verdict)});
        name.clear();
      }
    }
    fmt::print("{}", table.text());
  }
  print_rows("only in A", comparison.only_in_a, varying);
  print_rows("only in B", comparison.only_in_b, varying);
  fmt::print(
      "{}{} configurations in both, {} only in A, {} only in B; {} of those in both differ: ",
      comparison.changed.empty() && comparison.only_in_a.empty() && comparison.only_in_b.empty() ? "" : "\n",
      comparison.matched, comparison.only_in_a.size(), comparison.only_in_b.size(),
      comparison.changed.size());
  fmt::print("{} metrics worse in B, {} better\n", comparison.count(Verdict::worse),
             comparison.count(Verdict::better));
}

}  // namespace

ExitCode run_compare(const Arguments& arguments) {
  CommandLine line(
      "compare",
      "say which results of B, a sweep or the JSON of a bench, differ from those of A beyond their "
      "uncertainty; exit code 1 where one is worse",
      "tq compare last-week today\n"
      "         tq compare last-week.json today.json");
  line.add()("a", po::value<std::string>()->value_name("DIR|FILE"),
             "a sweep's folder, or what tq bench wrote")(
      "b", po::value<std::string>()->value_name("DIR|FILE"),
      "another, whose results are judged by the first's")("json", po::bool_switch(), "JSON instead of text");
  line.positional({"a", "b"});
  if (!line.parse(arguments)) return ExitCode::done;
  const std::string &folder_a = line.required("a"), &folder_b = line.required("b");
  const bool file_a = bench::is_file(folder_a), file_b = bench::is_file(folder_b);
  if (file_a && file_b) return bench::compare_bench(folder_a, folder_b, line.get<bool>("json"));
  if (file_a || file_b) {
    throw UsageError("compare: {} is a file and {} is not", file_a ? folder_a : folder_b,
                     file_a ? folder_b : folder_a);
  }
  const std::vector<ResultRow> a = read_result_rows(folder_a), b = read_result_rows(folder_b);
  const Comparison comparison = compare(a, b);
  // A check of nothing must not look like one that held.
  if (comparison.matched == 0) {
    throw InputError("{} and {} have no configuration in common: other axes, or another capture", folder_a,
                     folder_b);
  }
  if (line.get<bool>("json")) {
    fmt::print("{}\n", to_json(comparison).dump(2));
  } else {
    Rows all;
    for (const std::vector<ResultRow>* rows : {&a, &b}) {
      for (const ResultRow& row : *rows) all.push_back(&row);
    }
    print_text(comparison, varying_axes(all));
  }
  return comparison.count(Verdict::worse) == 0 ? ExitCode::done : ExitCode::gate_failed;
}

}  // namespace tq
