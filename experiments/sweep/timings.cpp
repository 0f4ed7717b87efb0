#include "experiments/sweep/timings.h"

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "experiments/sweep/result_log.h"

namespace tq {
namespace {

using Json = nlohmann::ordered_json;

void add_side(Json& line, const char* name, const CodecTimes& times) {
  if (times.vectors == 0) return;
  Json side{{"vectors", times.vectors}};
  if (times.one_pass_seconds > 0) {
    side["one_pass_seconds"] = times.one_pass_seconds;
  } else {
    side["encode_seconds"] = times.encode_seconds;
    side["decode_seconds"] = times.decode_seconds;
  }
  line[name] = std::move(side);
}

CodecTimes side(const Json& line, const char* name) {
  if (!line.contains(name)) return {};
  const Json& from = line[name];
  return {from.value("vectors", std::size_t{0}), from.value("encode_seconds", 0.0),
          from.value("decode_seconds", 0.0), from.value("one_pass_seconds", 0.0)};
}

}  // namespace

std::string timing_line(const std::string& key, std::size_t run, const Timing& timing) {
  Json line{{"key", key}, {"run", run}, {"seconds", timing.seconds}};
  add_side(line, "keys", timing.keys);
  add_side(line, "values", timing.values);
  return line.dump();
}

std::map<std::string, Timing> read_timings(const std::string& folder) {
  std::ifstream file(std::filesystem::path(folder) / kTimingsFile);
  std::map<std::string, Timing> timings;
  for (std::string text; std::getline(file, text);) {
    try {
      const Json line = Json::parse(text);
      timings[line.at("key").get<std::string>()] = {line.at("seconds").get<double>(), side(line, "keys"),
                                                    side(line, "values")};
    } catch (const Json::exception&) {
      continue;
    }
  }
  return timings;
}

}  // namespace tq
