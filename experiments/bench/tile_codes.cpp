#include "experiments/bench/tile_codes.h"

#include "core/packing.h"
#include "kernel_templates/device_tables.h"

namespace tq::bench {

EncodedKeys keys_of_tile(const KeyCodec& codec, gpu::Side side, const gpu::u8* tile, std::size_t rows) {
  const std::size_t d = static_cast<std::size_t>(codec.head_dim());
  EncodedKeys keys;
  keys.rows = rows;
  keys.codes.resize(rows * packed_bytes(d, codec.config().table_bits()));
  keys.scales.resize(rows);
  if (codec.config().mode == KeyMode::prod) {
    keys.signs.resize(rows * packed_bytes(d, 1));
    keys.residual_norms.resize(rows);
  }
  gpu::tile_to_keys(gpu::key_spec(codec), side, codec, tile, static_cast<int>(rows), block_of(keys));
  return keys;
}

EncodedValues values_of_tile(const ValueCodec& codec, const gpu::u8* tile, std::size_t rows) {
  if (const KeyCodec* rotated = codec.rotated()) return keys_of_tile(*rotated, gpu::Side::values, tile, rows);
  const ValueConfig& config = codec.config();
  const std::size_t d = static_cast<std::size_t>(codec.head_dim()),
                    groups = d / static_cast<std::size_t>(config.group_size);
  EncodedGroups values;
  values.rows = rows;
  values.codes.resize(rows * packed_bytes(d, config.bits));
  values.zeros.resize(rows * groups);
  values.scales.resize(rows * groups);
  gpu::tile_to_groups({codec.head_dim(), config.bits, config.group_size}, tile, static_cast<int>(rows),
                      {values.codes.data(), values.zeros.data(), values.scales.data()});
  return values;
}

KeyBlock block_of(EncodedKeys& keys) {
  return {keys.codes.data(), keys.scales.data(), keys.signs.data(), keys.residual_norms.data()};
}

ConstKeyBlock block_of(const EncodedKeys& keys) {
  ConstKeyBlock block;
  block.codes = keys.codes.data();
  block.scales = keys.scales.data();
  block.signs = keys.signs.data();
  block.residual_norms = keys.residual_norms.data();
  return block;
}

ConstGroupBlock block_of(const EncodedGroups& values) {
  ConstGroupBlock block;
  block.codes = values.codes.data();
  block.zeros = values.zeros.data();
  block.scales = values.scales.data();
  return block;
}

void decode(const KeyCodec& codec, const EncodedKeys& keys, float* out) {
  codec.decode_rows(keys, 0, keys.rows, false, out);
}

void decode(const ValueCodec& codec, const EncodedValues& values, float* out) {
  if (const KeyCodec* rotated = codec.rotated()) return decode(*rotated, std::get<EncodedKeys>(values), out);
  const EncodedGroups& groups = std::get<EncodedGroups>(values);
  codec.decode_block(block_of(groups), groups.rows, out);
}

}  // namespace tq::bench
