#include "experiments/codec_options.h"

#include <array>
#include <charconv>
#include <string>
#include <system_error>

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

}  // namespace

void add_codec_options(CommandLine& line, AlphaTarget default_alpha) {
  line.add()("key-mode", text("mse", "MODE"),
             "keys: mse (Lloyd-Max), or prod (one bit less and a 1-bit QJL sketch)")(
      "key-bits", number(3, "B"), "1..8 bits a key coordinate, prod's sign bit included")(
      "scale", text("nc", "RULE"),
      "stored scale of mse keys and rotated values: norm, nc (keeps the length) or ls (least squares)")(
      "sketch", text("orthogonal", "KIND"), "prod keys: orthogonal or gaussian")(
      "alpha", text(to_string(default_alpha), "TARGET"),
      "prod keys: unbiased, or fitted for mse (closed form), cos or score (captured queries)")(
      "value-mode", text("rotated", "MODE"), "values: rotated (Lloyd-Max), or group (min and scale a group)")(
      "value-bits", number(3, "B"), "rotated 1..8; group 2, 3, 4 or 8")(
      "group-size", number(32, "N"), "coordinates that share a scale, in group mode")(
      "rotation", text("rht", "KIND"), "rht (Hadamard, random signs and permutation) or qr (dense)")(
      "seed", text("0", "N"), "of the rotation and the sketch");
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

}  // namespace tq
