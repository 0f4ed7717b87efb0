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

// Consecutive encoded rows wherever they lie, laid out as in EncodedGroups.
struct GroupBlock {
  std::uint8_t* codes = nullptr;
  std::uint16_t* zeros = nullptr;
  std::uint16_t* scales = nullptr;
};
struct ConstGroupBlock {
  ConstGroupBlock() = default;
  ConstGroupBlock(const GroupBlock& block) : codes(block.codes), zeros(block.zeros), scales(block.scales) {}

  const std::uint8_t* codes = nullptr;
  const std::uint16_t* zeros = nullptr;
  const std::uint16_t* scales = nullptr;
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
  // encode() and decode_rows() of rows that lie in a block, on the calling thread: the same bits.
  void encode_block(const float* x, std::size_t rows, const GroupBlock& out) const;
  void decode_block(const ConstGroupBlock& values, std::size_t rows, float* out) const;

 private:
  ValueConfig config_;
  int head_dim_;
};

using EncodedValues = std::variant<EncodedGroups, EncodedKeys>;
using ValueBlock = std::variant<GroupBlock, KeyBlock>;
using ConstValueBlock = std::variant<ConstGroupBlock, ConstKeyBlock>;

// Values of either mode. Immutable; safe to share between threads; results do not depend on the thread count.
class ValueCodec {
 public:
  // group: `rotation` and `codebook` are not used. rotated: throws as KeyCodec does.
  ValueCodec(const ValueConfig& config, int head_dim, std::shared_ptr<const Rotation> rotation,
             Codebook codebook);

  const ValueConfig& config() const { return config_; }
  int head_dim() const;
  // What rotated values are encoded with; null in group mode.
  const KeyCodec* rotated() const { return std::get_if<KeyCodec>(&codec_); }

  // x: rows x d.
  void encode(const float* x, std::size_t rows, EncodedValues& out) const;
  // The same rows to a block of the codec's mode, on the calling thread: the same bits.
  void encode_block(const float* x, std::size_t rows, const ValueBlock& out) const;
  void decode(const EncodedValues& values, float* out) const;

  // Attention output straight from the codes: out[q * d + j] = sum over t of weights[q * rows + t] v^[t][j].
  // Rotated values are added up in the rotated frame and unrotated once a query.
  void weighted_sum(const float* weights, std::size_t queries, const EncodedValues& values, float* out) const;
  // Its step over one block of rows, on the calling thread. out: rows x d as the sum over tokens wants them,
  // group values as they are, rotated ones in the rotated frame: what is summed must be unrotated once.
  void decode_block(const ConstValueBlock& values, std::size_t rows, float* out) const;

 private:
  ValueConfig config_;
  std::variant<GroupCodec, KeyCodec> codec_;
};

std::size_t row_count(const EncodedValues& values);

// The table that needs no data: sphere_codebook in rotated mode, empty in group mode.
Codebook default_value_table(const ValueConfig& config, int head_dim);

}  // namespace tq
