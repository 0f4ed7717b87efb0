#include "experiments/sweep/merge_sweeps.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>

#include "calibration/artefact/atomic_folder.h"
#include "core/error.h"
#include "core/sha256.h"
#include "datasets/atomic_file.h"
#include "datasets/json_strict.h"
#include "experiments/sweep/result_log.h"

namespace tq {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

constexpr std::int64_t kMostShards = 1 << 20;
constexpr std::int64_t kMostConfigurations = 1 << 30;
constexpr std::size_t kMostRuns = 1 << 16;

// A folder of one shard, checked as far as it can be by itself.
struct ShardFolder {
  std::string folder, plan;                   // plan: digest of the whole sweep's
  std::int64_t index = 0, count = 0, of = 0;  // from 0; shards; configurations of all shards
  Json manifest;
  std::vector<std::string> keys, lines;  // in the order of the file
};

// Whole lines of a file; what a kill cut off is left out.
std::vector<std::string> whole_lines(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  const std::string text{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  std::vector<std::string> lines;
  for (std::size_t begin = 0, end; (end = text.find('\n', begin)) != std::string::npos; begin = end + 1) {
    lines.push_back(text.substr(begin, end - begin));
  }
  return lines;
}

ShardFolder read_folder(const std::string& folder) {
  ShardFolder shard;
  shard.folder = folder;
  const std::string manifest_path = (fs::path(folder) / kManifestFile).string();
  const JsonDocument document = read_json(manifest_path);
  const auto runs = document.root().at("runs").items(kMostRuns);
  if (runs.empty()) throw InputError("{}: holds no run", manifest_path);
  const std::optional<JsonNode> entry = runs.back().find("shard");
  if (!entry || entry->is_null()) {
    throw InputError("{}: holds no shard of a sweep, but all of one", folder);
  }
  shard.count = entry->at("count").integer(1, kMostShards);
  shard.index = entry->at("index").integer(1, shard.count) - 1;
  shard.of = entry->at("configurations").integer(shard.count, kMostConfigurations);
  shard.plan = entry->at("plan_sha256").text();
  std::ifstream file(manifest_path);
  shard.manifest = Json::parse(file);

  const std::map<std::string, std::string> results = read_results(folder);  // checks every line
  for (std::string& line : whole_lines(fs::path(folder) / kResultsFile)) {
    shard.keys.push_back(key_of(line));
    shard.lines.push_back(std::move(line));
  }
  const auto wanted = static_cast<std::size_t>((shard.of - shard.index + shard.count - 1) / shard.count);
  if (shard.lines.size() != wanted) {
    throw InputError("{}: holds {} results, and its shard has {}; finish it with --resume", folder,
                     shard.lines.size(), wanted);
  }
  return shard;
}

// A line of timings.jsonl with its run counted after `before` others; nothing for what a kill has cut.
std::optional<std::string> moved_timing(const std::string& text, std::size_t before) {
  Json line = Json::parse(text, nullptr, false);
  if (!line.is_object() || !line.contains("run") || !line["run"].is_number_unsigned()) return std::nullopt;
  line["run"] = line["run"].get<std::size_t>() + before;
  return line.dump();
}

}  // namespace

void merge_sweeps(const std::vector<std::string>& folders, const std::string& out) {
  std::vector<ShardFolder> shards;
  for (const std::string& folder : folders) {
    ShardFolder shard = read_folder(folder);
    if (!shards.empty() && (shard.plan != shards[0].plan || shard.count != shards[0].count)) {
      throw InputError("{}: is a shard of another sweep than {}", folder, shards[0].folder);
    }
    shards.push_back(std::move(shard));
  }
  std::sort(shards.begin(), shards.end(),
            [](const ShardFolder& a, const ShardFolder& b) { return a.index < b.index; });
  for (std::size_t i = 1; i < shards.size(); ++i) {
    if (shards[i].index == shards[i - 1].index) {
      throw InputError("{}: is shard {}, and so is {}", shards[i].folder, shards[i].index + 1,
                       shards[i - 1].folder);
    }
  }
  for (std::int64_t i = 0; i < shards[0].count; ++i) {
    if (static_cast<std::size_t>(i) < shards.size() && shards[static_cast<std::size_t>(i)].index == i)
      continue;
    throw InputError("{}: is one of {} shards, and shard {} is missing", shards[0].folder, shards[0].count,
                     i + 1);
  }

  std::string results, timings, keys;
  for (std::size_t i = 0; i < static_cast<std::size_t>(shards[0].of); ++i) {
    const ShardFolder& shard = shards[i % shards.size()];
    results += shard.lines[i / shards.size()] + "\n";
    keys += shard.keys[i / shards.size()];
  }
  // The order, too: a shard's results lie in the plan's.
  if (sha256_hex(keys) != shards[0].plan) {
    throw InputError("{}: its results and the others' are not those of the planned sweep", shards[0].folder);
  }
  Json manifest = shards[0].manifest;
  manifest["runs"] = Json::array();
  for (const ShardFolder& shard : shards) {
    const std::size_t before = manifest["runs"].size();
    for (const Json& run : shard.manifest["runs"]) manifest["runs"].push_back(run);
    for (const std::string& line : whole_lines(fs::path(shard.folder) / kTimingsFile)) {
      if (const auto moved = moved_timing(line, before)) timings += *moved + "\n";
    }
  }

  std::error_code error;
  if (fs::exists(out, error) && !fs::is_empty(out, error)) {
    throw UsageError("{}: is not empty; choose another --out", out);
  }
  AtomicFolder folder(out);
  const fs::path into(folder.temporary());
  write_file_atomically((into / kResultsFile).string(), results);
  write_file_atomically((into / kTimingsFile).string(), timings);
  write_file_atomically((into / kManifestFile).string(), manifest.dump(2) + "\n");
  folder.commit();
}

}  // namespace tq
