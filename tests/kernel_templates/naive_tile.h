#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "core/key_codec.h"
#include "core/value_codec.h"
#include "shared/spec.h"

// A tile written out from the comment of shared/tile_layout.h, front to back, without any of its functions:
// for each place, which token's which coordinate stands there.
namespace tq::test {

struct TokenCoordinate {
  int token, coordinate;
  friend auto operator<=>(const TokenCoordinate&, const TokenCoordinate&) = default;
};

// Code j of a lane's pair of a block.
TokenCoordinate at_place(gpu::Side side, int block, int lane, int pair, int j);

// The token of row r + 8 h of sub-tile s of keys.
int key_token(int s, int r, int h);

using CodeOf = std::function<std::uint32_t(TokenCoordinate)>;

std::vector<std::uint8_t> naive_codes(gpu::Side side, int head_dim, int bits, const CodeOf& code);

// Whole tiles of core's rows. Tokens from `rows` on are zero.
std::vector<std::uint8_t> naive_tile(const gpu::KeySpec& spec, gpu::Side side, const KeyCodec& codec,
                                     const ConstKeyBlock& keys, int rows);
std::vector<std::uint8_t> naive_tile(const gpu::GroupSpec& spec, const ConstGroupBlock& values, int rows);

}  // namespace tq::test
