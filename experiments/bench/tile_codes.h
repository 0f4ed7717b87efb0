#pragma once

#include "core/value_codec.h"
#include "kernel_templates/tile_rows.h"

namespace tq::bench {

// A tile's first `rows` tokens in core's layout.
EncodedKeys keys_of_tile(const KeyCodec& codec, gpu::Side side, const gpu::u8* tile, std::size_t rows);
// Of values of either mode.
EncodedValues values_of_tile(const ValueCodec& codec, const gpu::u8* tile, std::size_t rows);

KeyBlock block_of(EncodedKeys&);
ConstKeyBlock block_of(const EncodedKeys&);
ConstGroupBlock block_of(const EncodedGroups&);

// rows x d, in the frame of the vectors that were encoded.
void decode(const KeyCodec& codec, const EncodedKeys& keys, float* out);
void decode(const ValueCodec& codec, const EncodedValues& values, float* out);

}  // namespace tq::bench
