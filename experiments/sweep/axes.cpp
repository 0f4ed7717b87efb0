#include "experiments/sweep/axes.h"

#include <algorithm>
#include <charconv>
#include <cstdint>
#include <limits>
#include <set>
#include <system_error>

#include "calibration/codecs/registry.h"
#include "core/cache_policy.h"
#include "core/codec_config.h"
#include "core/error.h"
#include "datasets/synthetic.h"
#include "experiments/nearest_name.h"
#include "experiments/sweep/backends.h"
#include "experiments/sweep/data_source.h"
#include "kernel_templates/shapes.h"

namespace tq {
namespace {

std::string number(Axis axis, std::string_view text, std::uint64_t least, std::uint64_t most) {
  std::uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || value < least || value > most) {
    throw UsageError("{} '{}' is no integer from {} to {}", info(axis).name, text, least, most);
  }
  return fmt::format("{}", value);
}

template <typename Enum>
std::string choice(Axis axis, std::string_view text) {
  return std::string(to_string(parse_choice<Enum>(info(axis).name, text)));
}

// "a, b, c" of registered codecs, each as `text` has it; "" leaves one out.
template <typename Text>
std::string storage_list(const Text& text) {
  std::vector<std::string> list;
  for (const StorageCodec* codec : storage_codecs()) {
    if (std::string entry = text(*codec); !entry.empty()) list.push_back(std::move(entry));
  }
  return fmt::format("{}", fmt::join(list, ", "));
}

// As in "trellis, a baseline (fp16, fp8)".
std::string storage_names() {
  const auto names = [](bool baseline) {
    return storage_list([&](const StorageCodec& codec) {
      return codec.baseline() == baseline ? std::string(codec.name()) : std::string();
    });
  };
  return fmt::format("{}, a baseline ({})", names(false), names(true));
}

// As in "trellis 1/2/3/4".
std::string storage_bits() {
  return storage_list([](const StorageCodec& codec) {
    return codec.bits().empty() ? std::string()
                                : fmt::format("{} {}", codec.name(), fmt::join(codec.bits(), "/"));
  });
}

// A side of the cache may also be stored by a registered codec, or stay as it is.
template <typename Enum>
std::string mode(Axis axis, std::string_view text) {
  if (text == kNone || storage_codec_named(text) != nullptr) return std::string(text);
  try {
    return choice<Enum>(axis, text);
  } catch (const UsageError& error) {
    throw UsageError("{}, {}, {}", error.what(), kNone,
                     storage_list([](const StorageCodec& codec) { return std::string(codec.name()); }));
  }
}

std::string measure(std::string_view text) {
  if (text != kQuality && text != kFused && text != kCapacity && text != kPerplexity) {
    throw UsageError("measure '{}' is unknown; choose one of: {}, {}, {}, {}", text, kQuality, kFused,
                     kCapacity, kPerplexity);
  }
  return std::string(text);
}

std::string equalise(std::string_view text) {
  if (text != kNone && text != kChannel) {
    throw UsageError("equalise '{}' is unknown; choose one of: {}, {}", text, kNone, kChannel);
  }
  return std::string(text);
}

// A target to fit, or a number: the alpha itself.
std::string alpha(std::string_view text) {
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error == std::errc() && end == text.data() + text.size()) {
    if (!(value >= 0 && value <= 2)) throw UsageError("alpha '{}' is out of range: 0 to 2", text);
    return fmt::format("{}", value == 0 ? 0.0 : value);
  }
  try {
    return choice<AlphaTarget>(Axis::alpha, text);
  } catch (const UsageError& failure) {
    throw UsageError("{}, a number from 0 to 2", failure.what());
  }
}

// An amount with a unit, as bytes.
std::string memory(std::string_view text) {
  constexpr std::uint64_t kMostBytes = std::uint64_t{1} << 50;
  constexpr std::array<std::string_view, 9> kUnits{"", "KB", "MB", "GB", "TB", "KiB", "MiB", "GiB", "TiB"};
  std::uint64_t amount = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), amount);
  const std::string_view unit(end, static_cast<std::size_t>(text.data() + text.size() - end));
  const auto known = std::find(kUnits.begin(), kUnits.end(), unit);
  std::uint64_t bytes = 0;
  if (error == std::errc() && known != kUnits.end() && amount <= kMostBytes) {
    const std::size_t index = static_cast<std::size_t>(known - kUnits.begin());
    const std::uint64_t base = index > 4 ? 1024 : 1000;
    bytes = amount;
    for (std::size_t i = 0; i < (index > 4 ? index - 4 : index); ++i) {
      bytes = bytes <= kMostBytes ? bytes * base : bytes;
    }
  }
  if (bytes < 1 || bytes > kMostBytes) {
    throw UsageError("memory '{}' is no size from 1 byte to 1024TiB such as 16GiB, 16384MiB or 16GB", text);
  }
  return fmt::format("{}", bytes);
}

std::string_view trimmed(std::string_view text) {
  const std::size_t begin = text.find_first_not_of(" \t");
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(" \t") + 1 - begin);
}

}  // namespace

const std::array<AxisInfo, kAxes>& axes() {
  static const std::array<AxisInfo, kAxes> list{{
      {Axis::measure, "measure", "quality",
       "quality (errors of vectors, scores and outputs), fused (a decode step over codes against float64 "
       "attention over the same codes; exit code 1 where it is not exact enough), capacity (how many "
       "tokens a memory holds) or perplexity (a model's loss, beside that with an FP16 cache)"},
      {Axis::source, "source", "gaussian",
       "gaussian, laplace, student_t, sphere, outliers (synthetic), sample (the embedded capture) or "
       "capture:FILE"},
      {Axis::d, "d", "128", "head dimension of synthetic rows"},
      {Axis::rows, "rows", "4096", "synthetic keys and values; fused: tokens"},
      {Axis::queries, "queries", "256",
       "synthetic queries, each of which sees all rows; 0: scores are not measured"},
      {Axis::heads, "heads", "8", "fused and capacity: KV heads"},
      {Axis::gqa, "gqa", "1", "fused: query heads that share a KV head, up to 16"},
      {Axis::memory, "memory", "16GiB", "capacity: the device's, as 16GiB, 16384MiB, 16GB or bytes"},
      {Axis::memory_share, "memory-share", "60", "capacity: percent of the memory that the cache may fill"},
      {Axis::model, "model", "none", "perplexity: a folder, as tq ppl --model"},
      {Axis::text, "text", "none",
       "perplexity: a file, as tq ppl --text, or tokens:FILE, as tq ppl --tokens"},
      {Axis::context, "context", "1024", "perplexity: tokens a window"},
      {Axis::recent_window, "recent-window", "128", "perplexity: newest tokens that stay exact"},
      {Axis::seed, "seed", "0",
       "of the rotation, the sketch and synthetic data; the table averages over seeds"},
      {Axis::backend, "backend", "host", "what encodes, decodes and attends: host, or cuda (a GPU)"},
      {Axis::rotation, "rotation", "rht", "rht or qr"},
      {Axis::key_mode, "key-mode", "mse",
       fmt::format("mse, prod, {}, or none: keys stay exact and are not counted", storage_names())},
      {Axis::key_bits, "key-bits", "3", fmt::format("mse 1..8, prod 2..8, {}", storage_bits())},
      {Axis::sketch, "sketch", "orthogonal", "prod keys: orthogonal or gaussian"},
      {Axis::alpha, "alpha", "unbiased", "prod keys: unbiased, mse, cos, score, or the alpha itself, as 0.8"},
      {Axis::value_mode, "value-mode", "rotated",
       fmt::format("rotated, group, {}, or none: values stay exact and are not counted", storage_names())},
      {Axis::value_bits, "value-bits", "3", fmt::format("rotated 1..8, group 2/3/4/8, {}", storage_bits())},
      {Axis::group_size, "group-size", "32", "group values: coordinates that share a scale"},
      {Axis::equalise, "equalise", "none",
       "group values: none, or channel (every channel is divided by its root mean square over the layer's "
       "tokens, and multiplied by it after decoding)"},
      {Axis::scale, "scale", "nc", "of what is rotated, but prod keys: nc, norm or ls"},
  }};
  return list;
}

Axis axis_named(std::string_view name) {
  std::vector<std::string> names;
  for (const AxisInfo& axis : axes()) {
    if (name == axis.name) return axis.axis;
    names.emplace_back(axis.name);
  }
  throw UsageError("'{}' is no axis of a sweep; did you mean '{}'?", name, nearest_name(name, names));
}

std::string canonical_value(Axis axis, std::string_view text) {
  constexpr std::uint64_t kMostRows = std::uint64_t{1} << 24;
  switch (axis) {
    case Axis::measure:
      return measure(text);
    case Axis::source:
      return canonical_source(text);
    case Axis::d:
      return number(axis, text, 1, 1024);
    case Axis::rows:
      return number(axis, text, 1, kMostRows);
    case Axis::queries:
      return number(axis, text, 0, 65536);
    case Axis::heads:
      return number(axis, text, 1, 1024);
    case Axis::gqa:
      return number(axis, text, 1, gpu::kMaxGroup);
    case Axis::memory:
      return memory(text);
    case Axis::memory_share:
      return number(axis, text, 1, 100);
    case Axis::model:
    case Axis::text:
      if (text.empty()) throw UsageError("{} has an empty value", info(axis).name);
      return std::string(text);
    case Axis::context:
      return number(axis, text, 2, kMostRows);
    case Axis::recent_window:
      return number(axis, text, 0, kMaxPolicyTokens);
    case Axis::seed:
      return number(axis, text, 0, std::numeric_limits<std::uint64_t>::max());
    case Axis::backend:
      return canonical_backend(text);
    case Axis::rotation:
      return choice<RotationKind>(axis, text);
    case Axis::key_mode:
      return mode<KeyMode>(axis, text);
    case Axis::value_mode:
      return mode<ValueMode>(axis, text);
    // Which bits and group sizes are possible depends on the mode; see configuration.h.
    case Axis::key_bits:
    case Axis::value_bits:
      return number(axis, text, 1, 8);
    case Axis::group_size:
      return number(axis, text, 1, 1024);
    case Axis::sketch:
      return choice<SketchKind>(axis, text);
    case Axis::alpha:
      return alpha(text);
    case Axis::equalise:
      return equalise(text);
    case Axis::scale:
      return choice<ScaleRule>(axis, text);
  }
  return {};
}

std::vector<std::string> value_list(Axis axis, std::string_view text) {
  std::vector<std::string> values;
  for (std::size_t begin = 0; begin <= text.size();) {
    const std::size_t end = std::min(text.find(',', begin), text.size());
    const std::string value = canonical_value(axis, trimmed(text.substr(begin, end - begin)));
    if (std::find(values.begin(), values.end(), value) == values.end()) values.push_back(value);
    begin = end + 1;
  }
  return values;
}

bool is_number(Axis axis) {
  switch (axis) {
    case Axis::d:
    case Axis::rows:
    case Axis::queries:
    case Axis::heads:
    case Axis::gqa:
    case Axis::memory:
    case Axis::memory_share:
    case Axis::context:
    case Axis::recent_window:
    case Axis::seed:
    case Axis::key_bits:
    case Axis::value_bits:
    case Axis::group_size:
      return true;
    default:
      return false;
  }
}

std::string describe(const Point& point) {
  std::string text;
  for (const AxisInfo& axis : axes()) {
    if (point[axis.axis].empty()) continue;
    text += fmt::format("{}{}={}", text.empty() ? "" : " ", axis.name, point[axis.axis]);
  }
  return text;
}

std::vector<Axis> varying_axes(const std::vector<const Point*>& points) {
  std::vector<Axis> varying;
  for (const AxisInfo& axis : axes()) {
    std::set<std::string> values;
    for (const Point* point : points) values.insert((*point)[axis.axis]);
    if (axis.axis != Axis::equalise) values.erase("");
    if (values.size() > 1) varying.push_back(axis.axis);
  }
  return varying;
}

}  // namespace tq
