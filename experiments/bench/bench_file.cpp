#include "experiments/bench/bench_file.h"

#include <filesystem>
#include <set>

#include "core/error.h"
#include "datasets/json_strict.h"

namespace tq::bench {
namespace {

constexpr std::size_t kMostRows = 100000;
constexpr std::int64_t kMostSize = std::int64_t{1} << 30;

double positive(const JsonNode& node) {
  const double value = node.number();
  if (!(value > 0)) throw InputError("{}: is not positive", node.where());
  return value;
}

BenchRow read_row(const JsonNode& node) {
  BenchRow row;
  row.name = node.at("name").text();
  if (const auto family = node.find("family")) row.family = family->text();
  if (const auto codec = node.find("codec")) row.codec = codec->text();
  if (const auto bytes = node.find("bytes")) row.bytes = bytes->number();
  for (const auto& [name, value] : {std::pair("batch", &row.batch), {"tokens", &row.tokens}, {"d", &row.d}}) {
    if (const auto size = node.find(name)) *value = static_cast<int>(size->integer(0, kMostSize));
  }
  if (const auto failed = node.find("failed")) row.failed = failed->boolean();
  if (row.failed) return row;
  row.median_us = positive(node.at("median_us"));
  row.p5_us = positive(node.at("p5_us"));
  row.p95_us = positive(node.at("p95_us"));
  return row;
}

}  // namespace

bool is_file(const std::string& path) {
  std::error_code cannot_tell;
  return std::filesystem::is_regular_file(path, cannot_tell);
}

BenchFile read_bench_file(const std::string& path) {
  const JsonDocument document = read_json(path);
  const JsonNode root = document.root();
  BenchFile file;
  file.device = root.at("device").text();
  file.revision = root.at("revision").text();
  if (const auto probes = root.find("probes")) {
    const JsonNode read = probes->at("read");
    file.probe_bytes_per_us = positive(read.at("bytes")) / positive(read.at("median_us"));
  }
  std::set<std::string> names;
  for (const JsonNode& node : root.at("rows").items(kMostRows)) {
    file.rows.push_back(read_row(node));
    if (!names.insert(file.rows.back().name).second)
      throw InputError("{}: a second row '{}'", node.where(), file.rows.back().name);
  }
  return file;
}

}  // namespace tq::bench
