#pragma once

#include "core/key_codec.h"
#include "core/value_codec.h"
#include "shared/tile_layout.h"

// Tiles to core's rows and back, on the host: exact, both ways (shared/tile_layout.h says where what lies).
namespace tq::gpu {

// `rows` tokens from the tile's first on, at most 64. What is beyond them in the tile becomes zero.
void keys_to_tile(const KeySpec& spec, Side side, const KeyCodec& codec, const ConstKeyBlock& keys, int rows,
                  u8* tile);
void tile_to_keys(const KeySpec& spec, Side side, const KeyCodec& codec, const u8* tile, int rows,
                  const KeyBlock& keys);
void groups_to_tile(const GroupSpec& spec, const ConstGroupBlock& values, int rows, u8* tile);
void tile_to_groups(const GroupSpec& spec, const u8* tile, int rows, const GroupBlock& values);

}  // namespace tq::gpu
