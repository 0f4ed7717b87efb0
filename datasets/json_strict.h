#pragma once

#include <cstdint>
#include <initializer_list>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace tq {

// JSON from other people: at most 64 MiB, 32 levels and 4 Mi values; a duplicate key, a number that is not
// finite, a comment or text after the value is an error. Every error is an InputError "PATH: PLACE: what",
// PLACE being the dotted way to the value ("layers.model.layers.0.key_codebook.bits", "centroids[3]").
inline constexpr std::size_t kJsonMaxBytes = std::size_t{64} << 20;
inline constexpr int kJsonMaxDepth = 32;
inline constexpr std::size_t kJsonMaxValues = std::size_t{4} << 20;

// One value of a document and the place where it stands. Valid as long as its JsonDocument.
class JsonNode {
 public:
  JsonNode(const nlohmann::json* value, std::string file, std::string place)
      : value_(value), file_(std::move(file)), place_(std::move(place)) {}

  // "PATH: PLACE", what messages begin with.
  std::string where() const;

  // A member of an object. at() throws when there is none of that name; find() gives nothing then.
  JsonNode at(std::string_view key) const;
  std::optional<JsonNode> find(std::string_view key) const;
  // All members, or the items of a list, of which there may be `most` (another InputError).
  std::vector<std::pair<std::string, JsonNode>> members(std::size_t most) const;
  std::vector<JsonNode> items(std::size_t most) const;

  bool is_null() const { return value_->is_null(); }
  bool is_array() const { return value_->is_array(); }
  bool boolean() const;
  std::string text() const;
  double number() const;
  std::int64_t integer(std::int64_t lowest, std::int64_t highest) const;
  std::uint64_t unsigned_integer() const;
  std::vector<double> numbers(std::size_t most) const;  // a list of numbers alone

  // Appends the place of every member that is not in `known`.
  void collect_unknown(std::initializer_list<std::string_view> known,
                       std::vector<std::string>& unknown) const;

 private:
  JsonNode child(std::string_view key, const nlohmann::json& value) const;
  const nlohmann::json& object() const;
  const nlohmann::json& list(std::size_t most) const;

  const nlohmann::json* value_;
  std::string file_;
  std::string place_;
};

class JsonDocument {
 public:
  // Parses `text`; `file` begins the messages.
  JsonDocument(std::string_view text, std::string file);

  JsonNode root() const { return {value_.get(), file_, ""}; }

 private:
  std::unique_ptr<const nlohmann::json> value_;
  std::string file_;
};

JsonDocument read_json(const std::string& path);

}  // namespace tq
