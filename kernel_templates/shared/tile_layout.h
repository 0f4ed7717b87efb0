#pragma once

#include "shared/spec.h"

// Where a code lies in a tile of 64 tokens of one KV head. A tile holds its codes in the order in which a
// warp feeds them to the tensor cores (mma.m16n8k16, the tile on the A side), so that lane l reads its own
// words with whole-line loads and no value ever crosses lanes.
//
// The 64 tokens are 4 sub-tiles s of 16, the d coordinates d/16 blocks of 16. For a block, lane l = 4 r + c
// holds 16 pairs of codes, pair p = 4 s + 2 i + h; the pairs of one s are, in order, the four registers of
// fragment A:
//
//   keys (A = tokens x coordinates)              values (A = coordinates x tokens)
//     token  16 s + 4 (r/2) + r%2 + 2 h            token  16 s + 4 c + 2 i + j
//     coord. 16 b + 4 c + 2 i + j                  coord. 16 b + 2 r + h           j = 0, 1 within the pair
//
// 32 codes of B bits are B words. Every byte selects a row of a table of 256 (device/lookup.cuh): it holds
// eight codes of 1 bit, four of 2, two of 4, laid end to end, least significant bit first. Two codes of 3
// bits leave two bits of a byte over, and three such bytes hold a further pair:
//
//   bits    7 6     5 4 3   2 1 0
//   word 0  p'1 p'0   pair  0 .. 3     pair 12 + n of byte n:  p' is its six bits, two in each word
//   word 1  p'3 p'2   pair  4 .. 7
//   word 2  p'5 p'4   pair  8 .. 11
//
// A lane's words of all blocks follow each other in groups of four (16 bytes a lane, 512 a warp), a rest of
// less than four word by word.
//
// The tokens of a key sub-tile are ordered so that the scores, transposed by movmatrix, are the B operand of
// the values' product. Coordinates are those before the rotation's permutation: a permutation of coordinates
// changes no inner product, so tiles leave it out.
namespace tq::gpu {

inline constexpr int kTileTokens = 64;
inline constexpr int kBlockCoordinates = 16;

// Words a lane holds of a plane of codes.
TQ_SHARED int lane_words(int head_dim, int bits) { return head_dim / kBlockCoordinates * bits; }

// Index of a lane's w-th word within the plane.
TQ_SHARED int word_index(int words, int lane, int w) {
  return w < words / 4 * 4 ? (w / 4 * kLanes + lane) * 4 + w % 4
                           : words / 4 * 4 * kLanes + (w - words / 4 * 4) * kLanes + lane;
}

// Block, lane, pair and place in the pair of a token's coordinate.
struct CodePlace {
  int block, lane, pair, j;
};

TQ_SHARED CodePlace code_place(Side side, int token, int coordinate) {
  const int s = token / 16, t = token % 16, block = coordinate / 16, x = coordinate % 16;
  if (side == Side::keys) {
    const int r = 2 * (t / 4) + t % 2, h = t % 4 / 2;
    return {block, 4 * r + x / 4, 4 * s + 2 * (x % 4 / 2) + h, x % 2};
  }
  return {block, 4 * (x / 2) + t / 4, 4 * s + 2 * (t % 4 / 2) + x % 2, t % 2};
}

// Where bit k of a code stands among the 32 B bits of its lane and block.
TQ_SHARED int code_bit(int bits, int pair, int j, int k) {
  if (bits != 3) return (2 * pair + j) * bits + k;
  const int f = 3 * j + k;
  return pair < 12 ? 8 * pair + f : 32 * (f / 2) + 8 * (pair - 12) + 6 + f % 2;
}

// Scales, norms: halves in the order in which the lanes of a score fragment need them.
TQ_SHARED int scale_place(int token) {
  const int s = token / 16, t = token % 16;
  return (2 * (t / 4) + t % 2) * 8 + 2 * s + t % 4 / 2;
}

TQ_SHARED int code_plane_bytes(int head_dim, int bits) { return kTileTokens * head_dim * bits / 8; }
inline constexpr int kScalarPlaneBytes = kTileTokens * 2;

// codes | scales | signs (as codes of 1 bit) | residual norms: as many bytes as the canonical layout takes.
TQ_SHARED int tile_scales_offset(const KeySpec& key) {
  return code_plane_bytes(key.head_dim, key.table_bits);
}
TQ_SHARED int tile_signs_offset(const KeySpec& key) { return tile_scales_offset(key) + kScalarPlaneBytes; }
TQ_SHARED int tile_residuals_offset(const KeySpec& key) {
  return tile_signs_offset(key) + code_plane_bytes(key.head_dim, 1);
}
TQ_SHARED int tile_bytes(const KeySpec& key) {
  return key.prod ? tile_residuals_offset(key) + kScalarPlaneBytes : tile_signs_offset(key);
}

// codes | zeros [group][token] | scales [group][token].
TQ_SHARED int tile_zeros_offset(const GroupSpec& group) {
  return code_plane_bytes(group.head_dim, group.bits);
}
TQ_SHARED int tile_scales_offset(const GroupSpec& group) {
  return tile_zeros_offset(group) + group.head_dim / group.group_size * kScalarPlaneBytes;
}
TQ_SHARED int tile_bytes(const GroupSpec& group) {
  return tile_scales_offset(group) + group.head_dim / group.group_size * kScalarPlaneBytes;
}
TQ_SHARED int tile_bytes(const ValueSpec& value) {
  return value.rotated ? tile_bytes(value.table) : tile_bytes(value.group);
}

}  // namespace tq::gpu
