#include "core/value_codec.h"

#include "core/half.h"
#include "core/packing.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "core/value_codec.cpp"
#include <hwy/foreach_target.h>

#include "core/key_codec-inl.h"

HWY_BEFORE_NAMESPACE();
namespace tq::HWY_NAMESPACE {

// 16 floats rounded to binary16: the bits, kept for the rows that exist, and the values to go on with.
HWY_INLINE FloatRow round_to_half(const FloatRow& row, std::uint16_t* HWY_RESTRICT bits) {
  HWY_ALIGN float values[kTileRows];
  store(row, values);
  for (std::size_t r = 0; r < kTileRows; ++r) {
    bits[r] = float_to_half_saturate(values[r]);
    values[r] = half_to_float(bits[r]);
  }
  return load(values);
}

template <int B>
HWY_NOINLINE void encode_groups(const float* HWY_RESTRICT tile, std::size_t d, std::size_t group_size,
                                std::uint16_t* HWY_RESTRICT zeros, std::uint16_t* HWY_RESTRICT scales,
                                std::uint32_t* HWY_RESTRICT words) {
  PackedWriter<B> writer(words);
  constexpr int kLargest = (1 << B) - 1;
  for (std::size_t start = 0, g = 0; start < d; start += group_size, ++g) {
    const float* HWY_RESTRICT group = tile + start * kTileRows;
    FloatRow low = load(group), high = low;
    for (std::size_t j = 1; j < group_size; ++j) {
      const FloatRow x = load(group + j * kTileRows);
      for (std::size_t i = 0; i < kVectors; ++i) {
        low.v[i] = hn::Min(low.v[i], x.v[i]);
        high.v[i] = hn::Max(high.v[i], x.v[i]);
      }
    }
    const FloatRow zero = round_to_half(low, zeros + g * kTileRows);
    FloatRow step = sub(high, low);
    for (std::size_t i = 0; i < kVectors; ++i) step.v[i] = hn::Div(step.v[i], hn::Set(Float(), kLargest));
    const FloatRow scale = round_to_half(step, scales + g * kTileRows);
    for (std::size_t j = 0; j < group_size; ++j) {
      const FloatRow x = load(group + j * kTileRows);
      UnsignedRow code;
      for (std::size_t i = 0; i < kVectors; ++i) {
        const auto zero_scale = hn::Eq(scale.v[i], hn::Zero(Float()));
        const auto exact = hn::Div(hn::Sub(x.v[i], zero.v[i]), scale.v[i]);
        const auto clamped = hn::Min(hn::Max(exact, hn::Zero(Float())), hn::Set(Float(), kLargest));
        const auto rounded = hn::NearestInt(hn::IfThenZeroElse(zero_scale, clamped));
        code.v[i] = hn::BitCast(Unsigned(), hn::And(rounded, hn::Set(Int(), kLargest)));
      }
      writer.push(code);
    }
  }
  writer.finish();
}

template <int B>
HWY_NOINLINE void decode_groups(const std::uint32_t* HWY_RESTRICT words, std::size_t d,
                                std::size_t group_size, const float* HWY_RESTRICT zeros,
                                const float* HWY_RESTRICT scales, float* HWY_RESTRICT tile) {
  PackedReader<B> reader(words);
  for (std::size_t start = 0, g = 0; start < d; start += group_size, ++g) {
    const FloatRow zero = load(zeros + g * kTileRows), scale = load(scales + g * kTileRows);
    for (std::size_t j = start; j < start + group_size; ++j) {
      const UnsignedRow code = reader.next();
      FloatRow value;
      for (std::size_t i = 0; i < kVectors; ++i)
        value.v[i] = hn::ConvertTo(Float(), hn::BitCast(Int(), code.v[i]));
      store(mul_add(value, scale, zero), tile + j * kTileRows);
    }
  }
}

void encode_group_block(const ValueConfig& config, std::size_t d, const float* x, std::size_t rows,
                        std::uint8_t* codes, std::uint16_t* zeros, std::uint16_t* scales) {
  const std::size_t group_size = static_cast<std::size_t>(config.group_size), groups = d / group_size;
  const std::size_t code_bytes = packed_bytes(d, config.bits);
  const TileBuffer tile = make_tile(d);
  const auto words = hwy::AllocateAligned<std::uint32_t>((d * 8 / 32 + 1) * kTileRows);
  const auto tile_zeros = hwy::AllocateAligned<std::uint16_t>(groups * kTileRows);
  const auto tile_scales = hwy::AllocateAligned<std::uint16_t>(groups * kTileRows);
  for (std::size_t r = 0; r < rows; r += kTileRows) {
    const std::size_t count = HWY_MIN(kTileRows, rows - r);
    load_tile(x + r * d, count, d, tile.get());
    with_bits(config.bits, [&](auto b) HWY_ATTR {
      encode_groups<decltype(b)::value>(tile.get(), d, group_size, tile_zeros.get(), tile_scales.get(),
                                        words.get());
    });
    store_words(words.get(), count, code_bytes, codes + r * code_bytes);
    for (std::size_t k = 0; k < count; ++k) {
      for (std::size_t g = 0; g < groups; ++g) {
        zeros[(r + k) * groups + g] = tile_zeros[g * kTileRows + k];
        scales[(r + k) * groups + g] = tile_scales[g * kTileRows + k];
      }
    }
  }
}

void decode_group_block(const ValueConfig& config, std::size_t d, const std::uint8_t* codes,
                        const std::uint16_t* zeros, const std::uint16_t* scales, std::size_t rows,
                        float* out) {
  const std::size_t group_size = static_cast<std::size_t>(config.group_size), groups = d / group_size;
  const std::size_t code_bytes = packed_bytes(d, config.bits);
  const TileBuffer tile = make_tile(d), tile_zeros = make_tile(groups), tile_scales = make_tile(groups);
  const auto words = hwy::AllocateAligned<std::uint32_t>((d * 8 / 32 + 1) * kTileRows);
  for (std::size_t r = 0; r < rows; r += kTileRows) {
    const std::size_t count = HWY_MIN(kTileRows, rows - r);
    load_words(codes + r * code_bytes, count, code_bytes, words.get());
    for (std::size_t g = 0; g < groups; ++g) {
      for (std::size_t k = 0; k < kTileRows; ++k) {
        const std::size_t source = (r + (k < count ? k : 0)) * groups + g;
        tile_zeros[g * kTileRows + k] = half_to_float(zeros[source]);
        tile_scales[g * kTileRows + k] = half_to_float(scales[source]);
      }
    }
    with_bits(config.bits, [&](auto b) HWY_ATTR {
      decode_groups<decltype(b)::value>(words.get(), d, group_size, tile_zeros.get(), tile_scales.get(),
                                        tile.get());
    });
    store_tile(tile.get(), count, d, out + r * d);
  }
}

}  // namespace tq::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include <stdexcept>

#include "core/attention.h"

namespace tq {
namespace {
HWY_EXPORT(encode_group_block);
HWY_EXPORT(decode_group_block);

// Rotated values are keys in mse mode.
KeyConfig as_key_config(const ValueConfig& config) { return {KeyMode::mse, config.bits, config.scale, {}}; }

std::variant<GroupCodec, KeyCodec> make_codec(const ValueConfig& config, int head_dim,
                                              std::shared_ptr<const Rotation> rotation, Codebook codebook) {
  validate(config, head_dim);
  if (config.mode == ValueMode::group) return GroupCodec(config, head_dim);
  if (rotation && rotation->head_dim() != head_dim) {
    throw std::invalid_argument("ValueCodec needs a rotation of its own dimension");
  }
  return KeyCodec(as_key_config(config), std::move(rotation), nullptr, {std::move(codebook), 0});
}

}  // namespace

GroupCodec::GroupCodec(const ValueConfig& config, int head_dim) : config_(config), head_dim_(head_dim) {
  validate(config, head_dim);
}

void GroupCodec::encode(const float* x, std::size_t rows, EncodedGroups& out) const {
  const std::size_t d = static_cast<std::size_t>(head_dim_), code_bytes = packed_bytes(d, config_.bits);
  out.rows = rows;
  out.codes.resize(rows * code_bytes);
  out.zeros.resize(rows * groups());
  out.scales.resize(rows * groups());
  parallel_blocks(rows, [&](std::size_t begin, std::size_t end) {
    HWY_DYNAMIC_DISPATCH(encode_group_block)
    (config_, d, x + begin * d, end - begin, out.codes.data() + begin * code_bytes,
     out.zeros.data() + begin * groups(), out.scales.data() + begin * groups());
  });
}

void GroupCodec::decode_rows(const EncodedGroups& values, std::size_t begin, std::size_t end,
                             float* out) const {
  const std::size_t d = static_cast<std::size_t>(head_dim_), code_bytes = packed_bytes(d, config_.bits);
  HWY_DYNAMIC_DISPATCH(decode_group_block)
  (config_, d, values.codes.data() + begin * code_bytes, values.zeros.data() + begin * groups(),
   values.scales.data() + begin * groups(), end - begin, out);
}

void GroupCodec::encode_block(const float* x, std::size_t rows, const GroupBlock& out) const {
  HWY_DYNAMIC_DISPATCH(encode_group_block)
  (config_, static_cast<std::size_t>(head_dim_), x, rows, out.codes, out.zeros, out.scales);
}

void GroupCodec::decode_block(const ConstGroupBlock& values, std::size_t rows, float* out) const {
  HWY_DYNAMIC_DISPATCH(decode_group_block)
  (config_, static_cast<std::size_t>(head_dim_), values.codes, values.zeros, values.scales, rows, out);
}

ValueCodec::ValueCodec(const ValueConfig& config, int head_dim, std::shared_ptr<const Rotation> rotation,
                       Codebook codebook)
    : config_(config), codec_(make_codec(config, head_dim, std::move(rotation), std::move(codebook))) {}

int ValueCodec::head_dim() const {
  return std::visit([](const auto& codec) { return codec.head_dim(); }, codec_);
}

void ValueCodec::encode(const float* x, std::size_t rows, EncodedValues& out) const {
  if (const auto* group = std::get_if<GroupCodec>(&codec_)) {
    if (!std::holds_alternative<EncodedGroups>(out)) out = EncodedGroups();
    group->encode(x, rows, std::get<EncodedGroups>(out));
  } else {
    if (!std::holds_alternative<EncodedKeys>(out)) out = EncodedKeys();
    std::get<KeyCodec>(codec_).encode(x, rows, std::get<EncodedKeys>(out));
  }
}

void ValueCodec::encode_block(const float* x, std::size_t rows, const ValueBlock& out) const {
  if (const auto* group = std::get_if<GroupCodec>(&codec_)) {
    group->encode_block(x, rows, std::get<GroupBlock>(out));
  } else {
    std::get<KeyCodec>(codec_).encode_block(x, rows, std::get<KeyBlock>(out));
  }
}

void ValueCodec::decode_block(const ConstValueBlock& values, std::size_t rows, float* out) const {
  if (const auto* group = std::get_if<GroupCodec>(&codec_)) {
    group->decode_block(std::get<ConstGroupBlock>(values), rows, out);
  } else {
    std::get<KeyCodec>(codec_).decode_block(std::get<ConstKeyBlock>(values), rows, true, out);
  }
}

namespace {

// Rows [begin, end) as the sum over tokens wants them: group values as they are, rotated ones in the rotated
// frame.
void decode_for_sum(const std::variant<GroupCodec, KeyCodec>& codec, const EncodedValues& values,
                    std::size_t begin, std::size_t end, bool rotated, float* out) {
  if (const auto* group = std::get_if<GroupCodec>(&codec)) {
    group->decode_rows(std::get<EncodedGroups>(values), begin, end, out);
  } else {
    std::get<KeyCodec>(codec).decode_rows(std::get<EncodedKeys>(values), begin, end, rotated, out);
  }
}

}  // namespace

void ValueCodec::decode(const EncodedValues& values, float* out) const {
  const std::size_t d = static_cast<std::size_t>(head_dim());
  parallel_blocks(row_count(values), [&](std::size_t begin, std::size_t end) {
    decode_for_sum(codec_, values, begin, end, false, out + begin * d);
  });
}

void ValueCodec::weighted_sum(const float* weights, std::size_t queries, const EncodedValues& values,
                              float* out) const {
  const std::size_t d = static_cast<std::size_t>(head_dim()), rows = row_count(values);
  // One partial sum a block, added up in order: the result does not depend on the thread count.
  const std::size_t blocks = (rows + kBlockRows - 1) / kBlockRows;
  std::vector<float> partial(blocks * queries * d, 0.0f);
  parallel_blocks(rows, [&](std::size_t begin, std::size_t end) {
    std::vector<float> decoded((end - begin) * d);
    decode_for_sum(codec_, values, begin, end, true, decoded.data());
    accumulate_weighted_rows(weights + begin, queries, rows, decoded.data(), end - begin, d,
                             partial.data() + begin / kBlockRows * queries * d);
  });
  std::vector<float> sum(queries * d, 0.0f);
  for (std::size_t block = 0; block < blocks; ++block) {
    for (std::size_t i = 0; i < sum.size(); ++i) sum[i] += partial[block * sum.size() + i];
  }
  if (const auto* rotated = std::get_if<KeyCodec>(&codec_)) {
    rotated->rotation().inverse(sum.data(), out, queries);
  } else {
    std::copy(sum.begin(), sum.end(), out);
  }
}

std::size_t row_count(const EncodedValues& values) {
  return std::visit([](const auto& encoded) { return encoded.rows; }, values);
}

Codebook default_value_table(const ValueConfig& config, int head_dim) {
  validate(config, head_dim);
  return config.mode == ValueMode::rotated ? sphere_codebook(head_dim, config.bits) : Codebook();
}

}  // namespace tq
#endif
