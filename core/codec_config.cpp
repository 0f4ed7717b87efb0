#include "core/codec_config.h"

#include <array>

#include "core/error.h"

namespace tq {
namespace {

// The names of an enum in the order of its values.
template <typename Enum>
struct Names;
template <>
struct Names<RotationKind> {
  static constexpr std::array<std::string_view, 2> list{"qr", "rht"};
};
template <>
struct Names<KeyMode> {
  static constexpr std::array<std::string_view, 2> list{"mse", "prod"};
};
template <>
struct Names<ScaleRule> {
  static constexpr std::array<std::string_view, 3> list{"norm", "nc", "ls"};
};
template <>
struct Names<SketchKind> {
  static constexpr std::array<std::string_view, 2> list{"gaussian", "orthogonal"};
};
template <>
struct Names<ValueMode> {
  static constexpr std::array<std::string_view, 2> list{"group", "rotated"};
};
template <>
struct Names<AlphaTarget> {
  static constexpr std::array<std::string_view, 4> list{"unbiased", "mse", "cos", "score"};
};

template <typename Enum>
std::string_view name_of(Enum value) {
  return Names<Enum>::list.at(static_cast<std::size_t>(value));
}

}  // namespace

std::string_view to_string(RotationKind value) { return name_of(value); }
std::string_view to_string(KeyMode value) { return name_of(value); }
std::string_view to_string(ScaleRule value) { return name_of(value); }
std::string_view to_string(SketchKind value) { return name_of(value); }
std::string_view to_string(ValueMode value) { return name_of(value); }
std::string_view to_string(AlphaTarget value) { return name_of(value); }

template <typename Enum>
Enum parse_choice(std::string_view option, std::string_view text) {
  const auto& names = Names<Enum>::list;
  for (std::size_t i = 0; i < names.size(); ++i) {
    if (names[i] == text) return static_cast<Enum>(i);
  }
  throw UsageError("{} '{}' is unknown; choose one of: {}", option, text, fmt::join(names, ", "));
}
template RotationKind parse_choice(std::string_view, std::string_view);
template KeyMode parse_choice(std::string_view, std::string_view);
template ScaleRule parse_choice(std::string_view, std::string_view);
template SketchKind parse_choice(std::string_view, std::string_view);
template ValueMode parse_choice(std::string_view, std::string_view);
template AlphaTarget parse_choice(std::string_view, std::string_view);

void validate_head_dim(int head_dim) {
  if (head_dim < 16 || head_dim > 1024 || head_dim % 8 != 0) {
    throw UsageError("head_dim {} is not a multiple of 8 from 16 to 1024", head_dim);
  }
}

void validate(const KeyConfig& key, int head_dim) {
  validate_head_dim(head_dim);
  const int fewest = key.mode == KeyMode::prod ? 2 : 1;
  if (key.bits < fewest || key.bits > 8) {
    throw UsageError("key bits {} are out of range: {} keys take {} to 8", key.bits, to_string(key.mode),
                     fewest);
  }
}

void validate(const ValueConfig& value, int head_dim) {
  validate_head_dim(head_dim);
  if (value.mode == ValueMode::rotated) {
    if (value.bits < 1 || value.bits > 8) {
      throw UsageError("value bits {} are out of range: rotated values take 1 to 8", value.bits);
    }
    return;
  }
  if (value.bits != 2 && value.bits != 3 && value.bits != 4 && value.bits != 8) {
    throw UsageError("value bits {} are not supported: group values take 2, 3, 4 or 8", value.bits);
  }
  if (value.group_size < 8 || value.group_size % 8 != 0 || head_dim % value.group_size != 0) {
    throw UsageError("group size {} must be a multiple of 8 that divides head_dim {}", value.group_size,
                     head_dim);
  }
}

int bytes_per_token(const KeyConfig& key, int head_dim) {
  return head_dim * key.bits / 8 + (key.mode == KeyMode::prod ? 4 : 2);
}

int bytes_per_token(const ValueConfig& value, int head_dim) {
  const int scalars = value.mode == ValueMode::group ? 4 * (head_dim / value.group_size) : 2;
  return head_dim * value.bits / 8 + scalars;
}

std::string describe(const KeyConfig& key) {
  return key.mode == KeyMode::prod ? fmt::format("prod{}-{}", key.bits, to_string(key.sketch))
                                   : fmt::format("mse{}-{}", key.bits, to_string(key.scale));
}

std::string describe(const ValueConfig& value) {
  return value.mode == ValueMode::group ? fmt::format("group{}-gs{}", value.bits, value.group_size)
                                        : fmt::format("rotated{}-{}", value.bits, to_string(value.scale));
}

}  // namespace tq
