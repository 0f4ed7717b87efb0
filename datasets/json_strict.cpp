#include "datasets/json_strict.h"

#include <algorithm>
#include <cmath>
#include <set>

#include "core/error.h"
#include "datasets/input_file.h"

namespace tq {
namespace {

// Watches the parser: nlohmann's own reader keeps the last of two equal keys and has no limit of depth or
// size.
class Guard {
 public:
  explicit Guard(const std::string& file) : file_(file) {}

  bool operator()(int depth, nlohmann::json::parse_event_t event, const nlohmann::json& parsed) {
    using Event = nlohmann::json::parse_event_t;
    switch (event) {
      case Event::object_start:
        keys_.emplace_back();
        [[fallthrough]];
      case Event::array_start:
        if (depth >= kJsonMaxDepth)
          throw InputError("{}: more than {} levels of nesting", file_, kJsonMaxDepth);
        count();
        break;
      case Event::object_end:
        keys_.pop_back();
        break;
      case Event::key:
        if (!keys_.back().insert(parsed.get<std::string>()).second) {
          throw InputError("{}: key '{}' stands twice in one object", file_,
                           printable(parsed.get<std::string>()));
        }
        break;
      case Event::value:
        count();
        break;
      case Event::array_end:
        break;
    }
    return true;
  }

 private:
  void count() {
    if (++values_ > kJsonMaxValues) throw InputError("{}: more than {} values", file_, kJsonMaxValues);
  }

  const std::string& file_;
  std::vector<std::set<std::string>> keys_;  // one set for each open object
  std::size_t values_ = 0;
};

}  // namespace

JsonDocument::JsonDocument(std::string_view text, std::string file) : file_(std::move(file)) {
  if (text.size() > kJsonMaxBytes) {
    throw InputError("{}: {} bytes of JSON; {} are the limit", file_, text.size(), kJsonMaxBytes);
  }
  try {
    value_ = std::make_unique<const nlohmann::json>(
        nlohmann::json::parse(text.begin(), text.end(), Guard(file_), /*allow_exceptions=*/true));
  } catch (const nlohmann::json::parse_error& error) {
    throw InputError("{}: not valid JSON at byte {} of {}", file_, error.byte, text.size());
  } catch (const nlohmann::json::out_of_range&) {
    throw InputError("{}: a number is too large for a double", file_);
  }
}

JsonDocument read_json(const std::string& path) {
  return JsonDocument(read_input_file(path, kJsonMaxBytes), path);
}

std::string JsonNode::where() const { return place_.empty() ? file_ : file_ + ": " + place_; }

JsonNode JsonNode::child(std::string_view key, const nlohmann::json& value) const {
  return {&value, file_, place_.empty() ? printable(key) : place_ + "." + printable(key)};
}

const nlohmann::json& JsonNode::object() const {
  if (!value_->is_object())
    throw InputError("{}: an object is wanted, this is {}", where(), value_->type_name());
  return *value_;
}

const nlohmann::json& JsonNode::list(std::size_t most) const {
  if (!value_->is_array()) throw InputError("{}: a list is wanted, this is {}", where(), value_->type_name());
  if (value_->size() > most) throw InputError("{}: {} items; {} are the most", where(), value_->size(), most);
  return *value_;
}

std::optional<JsonNode> JsonNode::find(std::string_view key) const {
  const auto& members = object();
  const auto member = members.find(key);
  if (member == members.end()) return std::nullopt;
  return child(key, *member);
}

JsonNode JsonNode::at(std::string_view key) const {
  auto member = find(key);
  if (!member) throw InputError("{}: '{}' is missing", where(), key);
  return *member;
}

std::vector<std::pair<std::string, JsonNode>> JsonNode::members(std::size_t most) const {
  const nlohmann::json& all = object();
  if (all.size() > most) throw InputError("{}: {} members; {} are the most", where(), all.size(), most);
  std::vector<std::pair<std::string, JsonNode>> out;
  for (const auto& [key, value] : all.items()) out.emplace_back(key, child(key, value));
  return out;
}

std::vector<JsonNode> JsonNode::items(std::size_t most) const {
  std::vector<JsonNode> out;
  for (const auto& value : list(most))
    out.push_back({&value, file_, fmt::format("{}[{}]", place_, out.size())});
  return out;
}

bool JsonNode::boolean() const {
  if (!value_->is_boolean())
    throw InputError("{}: true or false is wanted, this is {}", where(), value_->type_name());
  return value_->get<bool>();
}

std::string JsonNode::text() const {
  if (!value_->is_string())
    throw InputError("{}: a string is wanted, this is {}", where(), value_->type_name());
  return value_->get<std::string>();
}

double JsonNode::number() const {
  if (!value_->is_number())
    throw InputError("{}: a number is wanted, this is {}", where(), value_->type_name());
  const double value = value_->get<double>();
  if (!std::isfinite(value)) throw InputError("{}: the number is not finite", where());
  return value;
}

std::int64_t JsonNode::integer(std::int64_t lowest, std::int64_t highest) const {
  // An unsigned number beyond int64 would wrap to a negative one in get<>().
  const bool fits = value_->is_number_integer() && (!value_->is_number_unsigned() ||
                                                    value_->get<std::uint64_t>() <= std::uint64_t{INT64_MAX});
  const std::int64_t value = fits ? value_->get<std::int64_t>() : 0;
  if (!fits || value < lowest || value > highest) {
    throw InputError("{}: an integer from {} to {} is wanted", where(), lowest, highest);
  }
  return value;
}

std::uint64_t JsonNode::unsigned_integer() const {
  if (!value_->is_number_unsigned()) throw InputError("{}: an integer from 0 to 2^64 - 1 is wanted", where());
  return value_->get<std::uint64_t>();
}

std::vector<double> JsonNode::numbers(std::size_t most) const {
  std::vector<double> out;
  for (const JsonNode& item : items(most)) out.push_back(item.number());
  return out;
}

void JsonNode::collect_unknown(std::initializer_list<std::string_view> known,
                               std::vector<std::string>& unknown) const {
  for (const auto& [key, value] : object().items()) {
    if (std::find(known.begin(), known.end(), key) == known.end())
      unknown.push_back(child(key, value).place_);
  }
}

}  // namespace tq
