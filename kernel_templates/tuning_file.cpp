#include "kernel_templates/tuning_file.h"

#include <cstdint>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <optional>

#include "core/error.h"
#include "jit/nvrtc_api.h"

namespace tq {
namespace {

using Json = nlohmann::json;

constexpr const char* kFormat = "turboquant-tuning";
constexpr int kFormatVersion = 1;
constexpr int kLargest = 1 << 20;  // far above every field

Json to_json(const TuningScope& scope) {
  return {{"device", scope.device},
          {"compute_capability", scope.compute_capability},
          {"driver", scope.driver_version},
          {"nvrtc", scope.nvrtc},
          {"sources", scope.sources}};
}

Json to_json(const TuningKey& key, const BlockChoice& choice) {
  return {{"kernel", key.kernel},  {"log2_rows", key.log2_rows}, {"log2_tiles", key.log2_tiles},
          {"warps", choice.warps}, {"stages", choice.stages},    {"blocks", choice.blocks}};
}

Json empty_file() {
  return {{"format", kFormat}, {"format_version", kFormatVersion}, {"tunings", Json::array()}};
}

Json parse_file(std::string_view text) {
  Json file = Json::parse(text, nullptr, false);
  if (!file.is_object() || file.value("format", Json()) != kFormat) throw InputError("is no tuning file");
  if (file.value("format_version", Json()) != kFormatVersion)
    throw InputError("is a tuning file of another version");
  if (!file.value("tunings", Json()).is_array()) throw InputError("has no list 'tunings'");
  return file;
}

bool is_of_scope(const Json& entry, const TuningScope& scope) {
  return entry.is_object() && entry.value("scope", Json()) == to_json(scope) &&
         entry.value("choices", Json()).is_array();
}

// Nothing where the field is missing, no integer, negative or too large to mean anything.
std::optional<int> integer(const Json& object, const char* name) {
  const Json value = object.value(name, Json());
  if (!value.is_number_integer()) return std::nullopt;
  const std::int64_t number = value.get<std::int64_t>();  // from 2^63 on it is negative
  if (number < 0 || number > kLargest) return std::nullopt;
  return static_cast<int>(number);
}

void read_choice(const Json& object, Tuning& tuning) {
  if (!object.is_object() || !object.value("kernel", Json()).is_string()) return;
  const auto rows = integer(object, "log2_rows"), tiles = integer(object, "log2_tiles"),
             warps = integer(object, "warps"), stages = integer(object, "stages"),
             blocks = integer(object, "blocks");
  if (!rows || !tiles || !warps || !stages || !blocks) return;
  const BlockChoice choice{*warps, *stages, *blocks};
  if (is_sensible(choice)) tuning.set({object["kernel"].get<std::string>(), *rows, *tiles}, choice);
}

Tuning read_tuning(const Json& file, const TuningScope& scope) {
  Tuning tuning;
  for (const Json& entry : file["tunings"]) {
    if (!is_of_scope(entry, scope)) continue;
    for (const Json& choice : entry["choices"]) read_choice(choice, tuning);
  }
  return tuning;
}

}  // namespace

TuningScope tuning_scope(const DeviceInfo& device, const SourceTree& sources) {
  return {device.name, fmt::format("{}.{}", device.architecture.major, device.architecture.minor),
          device.driver_version, nvrtc::identity(), to_hex(sources.digest())};
}

Tuning parse_tuning(std::string_view text, const TuningScope& scope) {
  return read_tuning(parse_file(text), scope);
}

std::string merge_tuning(std::string_view text, const TuningScope& scope, const Tuning& added) {
  Json file;
  try {
    file = parse_file(text);
  } catch (const InputError&) {
    file = empty_file();
  }
  Tuning tuning = read_tuning(file, scope);
  for (const auto& [key, choice] : added.choices()) tuning.set(key, choice);
  Json entries = Json::array(), choices = Json::array();
  for (Json& entry : file["tunings"]) {
    if (!is_of_scope(entry, scope)) entries.push_back(std::move(entry));
  }
  for (const auto& [key, choice] : tuning.choices()) choices.push_back(to_json(key, choice));
  entries.push_back({{"scope", to_json(scope)}, {"choices", std::move(choices)}});
  file["tunings"] = std::move(entries);
  return file.dump(1) + "\n";
}

LoadedTuning load_tuning(const std::string& path, const TuningScope& scope) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return {};
  const std::string text{std::istreambuf_iterator<char>(file), {}};
  try {
    return {parse_tuning(text, scope), {}};
  } catch (const InputError& error) {
    return {{},
            fmt::format("{}: {}; kernels run as on an untuned device (tq tune writes it anew)", path,
                        error.what())};
  }
}

std::string tuning_file(const std::string& cache_folder) {
  return cache_folder.empty() ? std::string() : cache_folder + "/tuning.json";
}

}  // namespace tq
