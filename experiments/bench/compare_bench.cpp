#include "experiments/bench/compare_bench.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>
#include <vector>

#include "experiments/bench/bench_file.h"
#include "experiments/table.h"

namespace tq::bench {
namespace {

using Json = nlohmann::ordered_json;

// Runs of one program on one device differ by so much without any row's spread saying so: clocks, and where
// memory lies.
constexpr double kLeastDifference = 0.02;

enum class Verdict { same, slower, faster, wrong, right };

const char* to_string(Verdict verdict) {
  switch (verdict) {
    case Verdict::same:
      return "same";
    case Verdict::slower:
      return "slower";
    case Verdict::faster:
      return "faster";
    case Verdict::wrong:
      return "wrong";
    case Verdict::right:
      return "right";
  }
  return "";
}

Verdict verdict(const BenchRow& a, const BenchRow& b) {
  if (a.failed || b.failed) {
    if (a.failed == b.failed) return Verdict::same;
    return b.failed ? Verdict::wrong : Verdict::right;
  }
  if (std::fabs(b.median_us / a.median_us - 1) <= kLeastDifference) return Verdict::same;
  if (b.p5_us > a.p95_us) return Verdict::slower;
  return b.p95_us < a.p5_us ? Verdict::faster : Verdict::same;
}

struct Change {
  const BenchRow *a, *b;
  Verdict verdict;
};

struct Comparison {
  std::size_t matched = 0;
  std::vector<Change> changes;
  std::vector<std::string> only_in_a, only_in_b;

  std::size_t count(Verdict verdict) const {
    return static_cast<std::size_t>(std::count_if(
        changes.begin(), changes.end(), [&](const Change& change) { return change.verdict == verdict; }));
  }
};

Comparison compare(const BenchFile& a, const BenchFile& b) {
  std::map<std::string, const BenchRow*> rest;
  for (const BenchRow& row : b.rows) rest.emplace(row.name, &row);
  Comparison result;
  for (const BenchRow& row : a.rows) {
    const auto other = rest.find(row.name);
    if (other == rest.end()) {
      result.only_in_a.push_back(row.name);
      continue;
    }
    ++result.matched;
    if (const Verdict found = verdict(row, *other->second); found != Verdict::same)
      result.changes.push_back({&row, other->second, found});
    rest.erase(other);
  }
  for (const BenchRow& row : b.rows) {
    if (rest.contains(row.name)) result.only_in_b.push_back(row.name);
  }
  return result;
}

Json to_json(const BenchRow& row) {
  if (row.failed) return nullptr;
  return {{"median_us", row.median_us}, {"p5_us", row.p5_us}, {"p95_us", row.p95_us}};
}

Json to_json(const Comparison& comparison) {
  Json changed = Json::array();
  for (const Change& change : comparison.changes) {
    changed.push_back({{"name", change.a->name},
                       {"a", to_json(*change.a)},
                       {"b", to_json(*change.b)},
                       {"verdict", to_string(change.verdict)}});
  }
  return {{"in_both", comparison.matched},
          {"slower", comparison.count(Verdict::slower)},
          {"faster", comparison.count(Verdict::faster)},
          {"wrong", comparison.count(Verdict::wrong)},
          {"changed", changed},
          {"only_in_a", comparison.only_in_a},
          {"only_in_b", comparison.only_in_b}};
}

std::string cell(const BenchRow& row) {
  if (row.failed) return "FAILED";
  return fmt::format("{:.2f} ({:.2f} .. {:.2f})", row.median_us, row.p5_us, row.p95_us);
}

void print_names(const char* title, const std::vector<std::string>& names) {
  if (names.empty()) return;
  fmt::print("{}:\n", title);
  for (const std::string& name : names) fmt::print("  {}\n", name);
  fmt::print("\n");
}

void print_text(const Comparison& comparison, const BenchFile& a, const BenchFile& b) {
  fmt::print("A: {}, revision {}\nB: {}, revision {}\n\n", a.device, a.revision, b.device, b.revision);
  if (a.device != b.device) fmt::print("Two devices: their times differ whatever the program does.\n\n");
  if (!comparison.changes.empty()) {
    fmt::print(
        "Shown: medians more than {:.0f} % apart whose spreads, 5th to 95th of a hundred, do not "
        "overlap.\n\n",
        100 * kLeastDifference);
    Table table({"microseconds", "A", "B", "B / A", "B is"});
    for (const Change& change : comparison.changes) {
      const bool timed = !change.a->failed && !change.b->failed;
      table.row({change.a->name, cell(*change.a), cell(*change.b),
                 timed ? fmt::format("{:.3f}", change.b->median_us / change.a->median_us) : "",
                 to_string(change.verdict)});
    }
    fmt::print("{}\n", table.text());
  }
  print_names("only in A", comparison.only_in_a);
  print_names("only in B", comparison.only_in_b);
  fmt::print(
      "{} rows in both, {} only in A, {} only in B; of those in both {} slower in B, {} faster, {} wrong\n",
      comparison.matched, comparison.only_in_a.size(), comparison.only_in_b.size(),
      comparison.count(Verdict::slower), comparison.count(Verdict::faster), comparison.count(Verdict::wrong));
}

}  // namespace

ExitCode compare_bench(const std::string& path_a, const std::string& path_b, bool json) {
  const BenchFile a = read_bench_file(path_a), b = read_bench_file(path_b);
  const Comparison comparison = compare(a, b);
  // A check of nothing must not look like one that held.
  if (comparison.matched == 0) throw InputError("{} and {} have no row in common", path_a, path_b);
  if (json) {
    fmt::print("{}\n", to_json(comparison).dump(2));
  } else {
    print_text(comparison, a, b);
  }
  const bool worse = comparison.count(Verdict::slower) + comparison.count(Verdict::wrong) > 0;
  return worse ? ExitCode::gate_failed : ExitCode::done;
}

}  // namespace tq::bench
