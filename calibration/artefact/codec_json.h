#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "calibration/artefact/artefact.h"
#include "calibration/artefact/import.h"
#include "core/error.h"
#include "datasets/input_file.h"
#include "datasets/json_strict.h"

// Parts that the JSON exports share, written and read back.
namespace tq {

// Two spaces a level; bytes that are not UTF-8 (a command line's) become U+FFFD.
std::string json_text(const nlohmann::ordered_json& value);

// {"kind": "rht", "seed": 7, "sha256": digest of the object}
nlohmann::ordered_json seeded_json(std::string_view kind, std::uint64_t seed, const std::string& sha256);
SeededObject read_seeded(const JsonNode& node, std::vector<std::string>& unknown);

// Provenance without the model, which the formats name elsewhere.
nlohmann::ordered_json calibration_json(const Provenance& provenance);
Provenance read_calibration(const JsonNode& node, std::vector<std::string>& unknown);

// The policy's fields, recent_window and first_tokens, in the file's object; none without a policy.
void add_policy(nlohmann::ordered_json& root, const std::optional<CachePolicy>& policy);
std::optional<CachePolicy> read_policy(const JsonNode& root);

// One of the enums of core/codec_config.h.
template <typename Enum>
Enum read_choice(const JsonNode& node) {
  const std::string text = node.text();
  try {
    return parse_choice<Enum>("value", printable(text));
  } catch (const UsageError& error) {
    throw InputError("{}: {}", node.where(), error.what());
  }
}

}  // namespace tq
