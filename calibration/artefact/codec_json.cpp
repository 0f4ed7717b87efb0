#include "calibration/artefact/codec_json.h"

#include <limits>

namespace tq {

using nlohmann::ordered_json;

std::string json_text(const ordered_json& value) {
  return value.dump(2, ' ', false, ordered_json::error_handler_t::replace) + "\n";
}

ordered_json seeded_json(std::string_view kind, std::uint64_t seed, const std::string& sha256) {
  return {{"kind", kind}, {"seed", seed}, {"sha256", sha256}};
}

SeededObject read_seeded(const JsonNode& node, std::vector<std::string>& unknown) {
  node.collect_unknown({"kind", "seed", "sha256"}, unknown);
  return {node.at("kind").text(), node.at("seed").unsigned_integer(), node.at("sha256").text()};
}

ordered_json calibration_json(const Provenance& provenance) {
  return {{"tool_version", provenance.tool_version},
          {"command_line", provenance.command_line},
          {"utc_time", provenance.utc_time},
          {"capture_name", provenance.capture_name},
          {"capture_sha256", provenance.capture_sha256},
          {"fit_tokens", provenance.fit_tokens},
          {"held_out_tokens", provenance.held_out_tokens}};
}

Provenance read_calibration(const JsonNode& node, std::vector<std::string>& unknown) {
  node.collect_unknown({"tool_version", "command_line", "utc_time", "capture_name", "capture_sha256",
                        "fit_tokens", "held_out_tokens"},
                       unknown);
  constexpr std::int64_t kMost = std::numeric_limits<std::int64_t>::max();
  Provenance provenance;
  provenance.tool_version = node.at("tool_version").text();
  provenance.command_line = node.at("command_line").text();
  provenance.utc_time = node.at("utc_time").text();
  provenance.capture_name = node.at("capture_name").text();
  provenance.capture_sha256 = node.at("capture_sha256").text();
  provenance.fit_tokens = node.at("fit_tokens").integer(0, kMost);
  provenance.held_out_tokens = node.at("held_out_tokens").integer(0, kMost);
  return provenance;
}

void add_policy(ordered_json& root, const std::optional<CachePolicy>& policy) {
  if (!policy) return;
  root["recent_window"] = policy->recent;
  root["first_tokens"] = policy->sinks;
}

std::optional<CachePolicy> read_policy(const JsonNode& root) {
  if (!root.find("recent_window") && !root.find("first_tokens")) return std::nullopt;
  const auto tokens = [&](const std::string& name) {
    return static_cast<int>(root.at(name).integer(0, kMaxPolicyTokens));
  };
  return CachePolicy{.recent = tokens("recent_window"), .sinks = tokens("first_tokens")};
}

}  // namespace tq
