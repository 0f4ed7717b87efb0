#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <variant>
#include <vector>

#include "core/codec_config.h"
#include "core/key_codec.h"

namespace tq {

// Group-quantised vectors: codes packed by core/packing.h, a binary16 zero point and scale a group.
struct EncodedGroups {
  std::size_t rows = 0;
  std::vector<std::uint8_t> codes;    // rows x d bits / 8
  std::vector<std::uint16_t> zeros;   // rows x d / group_size
  std::vector<std::uint16_t> scales;  // rows x d / group_size
};

// Asymmetric group quantisation: zero = min, scale = (max - min) / (2^b - 1), both rounded to binary16 before
// code = round((v - zero) / scale), half to even, clamped. A constant group has scale 0 and decodes to its
// zero point.
class GroupCodec {
 public:
  // Throws UsageError as validate(ValueConfig) does.
  GroupCodec(const ValueConfig& config, int head_dim);
  int head_dim() const { return head_dim_; }
  std::size_t groups() const { return static_cast<std::size_t>(head_dim_ / config_.group_size); }

  // x: rows x d.
  void encode(const float* x, std::size_t rows, EncodedGroups& out) const;
  void decode_rows(const EncodedGroups& values, std::size_t begin, std::size_t end, float* out) const;

 private:
  ValueConfig config_;
  int head_dim_;
};

using EncodedValues = std::variant<EncodedGroups, EncodedKeys>;

// Values of either mode. Immutable; safe to share between threads; results do not depend on the thread count.
class ValueCodec {
 public:
  // group: `rotation` and `codebook` are not used. rotated: throws as KeyCodec does.
  ValueCodec(const ValueConfig& config, int head_dim, std::shared_ptr<const Rotation> rotation,
             Codebook codebook);

  const ValueConfig& config() const { return config_; }
  int head_dim() const;

  // x: rows x d.
  void encode(const float* x, std::size_t rows, EncodedValues& out) const;
  void decode(const EncodedValues& values, float* out) const;

  // Attention output straight from the codes: out[q * d + j] = sum over t of weights[q * rows + t] v^[t][j].
  // Rotated values are added up in the rotated frame and unrotated once a query.
  void weighted_sum(const float* weights, std::size_t queries, const EncodedValues& values, float* out) const;

 private:
  ValueConfig config_;
  std::variant<GroupCodec, KeyCodec> codec_;
};

std::size_t row_count(const EncodedValues& values);

// The table that needs no data: sphere_codebook in rotated mode, empty in group mode.
Codebook default_value_table(const ValueConfig& config, int head_dim);

}  // namespace tq
