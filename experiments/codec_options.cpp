#include "experiments/codec_options.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <sstream>
#include <string>
#include <system_error>
#include <vector>

#include "core/error.h"

namespace tq {
namespace po = boost::program_options;

namespace {

constexpr std::array<const char*, 10> kNames{"key-mode",   "key-bits",   "scale",      "sketch",   "alpha",
                                             "value-mode", "value-bits", "group-size", "rotation", "seed"};

template <typename Enum>
Enum choice(const CommandLine& line, const char* option) {
  return parse_choice<Enum>(std::string("--") + option, line.get<std::string>(option));
}

po::typed_value<std::string>* text(std::string_view value, const char* name) {
  return po::value<std::string>()->default_value(std::string(value))->value_name(name);
}

po::typed_value<int>* number(int value, const char* name) {
  return po::value<int>()->default_value(value)->value_name(name);
}

// Not left to Boost, which takes -1 for 2^64 - 1.
std::uint64_t seed(const std::string& text) {
  std::uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) {
    throw UsageError("--seed '{}' is no integer from 0 to 2^64 - 1", text);
  }
  return value;
}

std::vector<std::string> list(const CommandLine& line, const char* option) {
  std::vector<std::string> items;
  std::istringstream stream(line.get<std::string>(option));
  for (std::string item; std::getline(stream, item, ',');) {
    if (std::find(items.begin(), items.end(), item) != items.end()) {
      throw UsageError("--{}: {} stands twice", option, item);
    }
    items.push_back(item);
  }
  if (items.empty()) throw UsageError("--{} is an empty list", option);
  return items;
}

std::vector<int> bits_list(const CommandLine& line, const char* option) {
  std::vector<int> bits;
  for (const std::string& item : list(line, option)) {
    int value = 0;
    const auto [end, error] = std::from_chars(item.data(), item.data() + item.size(), value);
    if (error != std::errc() || end != item.data() + item.size() || value < 1 || value > 8) {
      throw UsageError("--{}: '{}' is no number of bits from 1 to 8", option, item);
    }
    bits.push_back(value);
  }
  return bits;
}

bool has_bits(KeyMode mode, int bits) { return mode != KeyMode::prod || bits >= 2; }
bool has_bits(ValueMode mode, int bits) {
  return mode != ValueMode::group || bits == 2 || bits == 3 || bits == 4 || bits == 8;
}

// Every mode of a list with every number of bits of another that it has.
template <typename Config, typename Mode>
std::vector<Config> combinations(const CommandLine& line, const char* modes, const char* bits,
                                 const Config& base) {
  std::vector<Config> result;
  for (const int number : bits_list(line, bits)) {
    const std::size_t before = result.size();
    for (const std::string& name : list(line, modes)) {
      const Mode mode = parse_choice<Mode>(std::string("--") + modes, name);
      if (!has_bits(mode, number)) continue;
      result.push_back(base);
      result.back().mode = mode;
      result.back().bits = number;
    }
    if (result.size() == before) {
      throw UsageError("--{}: none of {} has {} bits", bits, line.get<std::string>(modes), number);
    }
  }
  return result;
}

void add_common_options(CommandLine& line, AlphaTarget default_alpha) {
  line.add()(
      "scale", text("nc", "RULE"),
      "stored scale of mse keys and rotated values: norm, nc (keeps the length) or ls (least squares)")(
      "sketch", text("orthogonal", "KIND"), "prod keys: orthogonal or gaussian")(
      "alpha", text(to_string(default_alpha), "TARGET"),
      "prod keys: unbiased, or fitted for mse (closed form), cos or score (captured queries)")(
      "group-size", number(32, "N"), "coordinates that share a scale, in group mode")(
      "rotation", text("rht", "KIND"), "rht (Hadamard, random signs and permutation) or qr (dense)")(
      "seed", text("0", "N"), "of the rotation and the sketch");
}

}  // namespace

void add_codec_options(CommandLine& line, AlphaTarget default_alpha) {
  line.add()("key-mode", text("mse", "MODE"),
             "keys: mse (Lloyd-Max), or prod (one bit less and a 1-bit QJL sketch)")(
      "key-bits", number(3, "B"), "1..8 bits a key coordinate, prod's sign bit included");
  line.add()("value-mode", text("rotated", "MODE"),
             "values: rotated (Lloyd-Max), or group (min and scale a group)")(
      "value-bits", number(3, "B"), "rotated 1..8; group 2, 3, 4 or 8");
  add_common_options(line, default_alpha);
}

CodecOptions read_codec_options(const CommandLine& line) {
  CodecOptions options;
  options.key.mode = choice<KeyMode>(line, "key-mode");
  options.key.bits = line.get<int>("key-bits");
  options.key.scale = choice<ScaleRule>(line, "scale");
  options.key.sketch = choice<SketchKind>(line, "sketch");
  options.alpha = choice<AlphaTarget>(line, "alpha");
  options.value.mode = choice<ValueMode>(line, "value-mode");
  options.value.bits = line.get<int>("value-bits");
  options.value.group_size = line.get<int>("group-size");
  options.value.scale = options.key.scale;
  options.rotation = choice<RotationKind>(line, "rotation");
  options.seed = seed(line.get<std::string>("seed"));
  return options;
}

bool codec_options_given(const CommandLine& line) {
  for (const char* name : kNames) {
    if (line.given(name)) return true;
  }
  return false;
}

void add_candidate_options(CommandLine& line, const CandidateDefaults& defaults) {
  line.add()("key-mode", text("mse", "LIST"), "keys: mse (Lloyd-Max), prod (one bit less and a QJL sketch)")(
      "key-bits", text(defaults.key_bits, "LIST"), "1..8 bits a key coordinate, prod's sign bit included")(
      "value-mode", text(defaults.value_modes, "LIST"),
      "values: rotated (Lloyd-Max), group (min and scale a group)")(
      "value-bits", text(defaults.value_bits, "LIST"), "rotated 1..8; group 2, 3, 4 or 8");
  add_common_options(line, AlphaTarget::mse);
}

CodecCandidates read_candidates(const CommandLine& line, const CaptureInfo& info) {
  KeyConfig key;
  key.scale = choice<ScaleRule>(line, "scale");
  key.sketch = choice<SketchKind>(line, "sketch");
  ValueConfig value;
  value.scale = key.scale;
  value.group_size = line.get<int>("group-size");
  CodecCandidates candidates;
  candidates.keys = combinations<KeyConfig, KeyMode>(line, "key-mode", "key-bits", key);
  candidates.values = combinations<ValueConfig, ValueMode>(line, "value-mode", "value-bits", value);
  candidates.rotation = choice<RotationKind>(line, "rotation");
  candidates.alpha = choice<AlphaTarget>(line, "alpha");
  candidates.seed = seed(line.get<std::string>("seed"));
  if (!line.given("value-mode")) {
    std::erase_if(candidates.values, [&](const ValueConfig& config) {
      return config.mode == ValueMode::group && config.group_size > 0 &&
             std::any_of(info.layers.begin(), info.layers.end(),
                         [&](const LayerInfo& layer) { return layer.head_dim % config.group_size != 0; });
    });
  }
  return candidates;
}

void add_policy_options(CommandLine& line, int recent) {
  line.add()("first-tokens", number(0, "N"), "positions from 0 that stay exact (attention sinks)")(
      "recent-window", number(recent, "N"), "newest tokens that stay exact, a query's own included");
}

CachePolicy read_policy(const CommandLine& line) {
  const auto tokens = [&](const char* option) {
    const int value = line.get<int>(option);
    if (value < 0 || value > kMaxPolicyTokens) {
      throw UsageError("--{} is {}, must be from 0 to {}", option, value, kMaxPolicyTokens);
    }
    return value;
  };
  return {.recent = tokens("recent-window"), .sinks = tokens("first-tokens"), .flush_block = 1};
}

}  // namespace tq
