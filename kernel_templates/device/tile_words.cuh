#pragma once

#include "device/ptx.cuh"
#include "shared/launch.h"
#include "shared/params.h"

// Staged codes (a byte each, 64 tokens x d in shared memory) to the words of a tile, and single codes back.
namespace tq::gpu {

// A unit: the codes of pairs 2 u and 2 u + 1 of a lane and block, a byte each. Its codes of B bits end to
// end:
template <int kBits>
TQ_DEVICE u32 squeeze(u32 bytes) {
  if constexpr (kBits == 8) return bytes;
  constexpr u32 kMask = (1u << kBits) - 1;
  return (bytes & kMask) | (bytes >> (8 - kBits) & kMask << kBits) |
         (bytes >> (16 - 2 * kBits) & kMask << 2 * kBits) | (bytes >> (24 - 3 * kBits) & kMask << 3 * kBits);
}

// A lane's 8 units of one block to its B words (shared/tile_layout.h).
template <int kBits>
TQ_DEVICE void join_units(const u32 (&units)[8], u32 (&words)[kBits]) {
  if constexpr (kBits == 3 || kBits == 4) {
    // Two units to the four bytes of their pairs.
    const auto pairs = [&](int q) {
      constexpr u32 kCodes = ((1u << kBits) - 1) * 0x01010101u;  // masks come as 0xff
      const u32 low = units[2 * q] & kCodes, high = units[2 * q + 1] & kCodes;
      return permute_bytes(low | low >> (8 - kBits), high | high >> (8 - kBits), 0x6420u);
    };
#pragma unroll
    for (int w = 0; w < kBits; ++w) words[w] = pairs(w);
    if constexpr (kBits == 3) {
      const u32 rest = pairs(3);
#pragma unroll
      for (int w = 0; w < 3; ++w) words[w] |= rest << (6 - 2 * w) & 0xc0c0c0c0u;
    }
  } else {
#pragma unroll
    for (int w = 0; w < kBits; ++w) words[w] = 0;
#pragma unroll
    for (int u = 0; u < 8; ++u) words[u * kBits / 8] |= squeeze<kBits>(units[u]) << u * 4 * kBits % 32;
  }
}

// Bytes of a unit whose tokens satisfy the predicate are 0xff.
template <Side kSide, typename Predicate>
TQ_DEVICE u32 unit_mask(int lane, int unit, const Predicate& holds) {
  const int s = unit / 2, i = unit % 2, r = lane / 4, c = lane % 4;
  if constexpr (kSide == Side::keys) {
    const int token = 16 * s + 4 * (r / 2) + r % 2;
    return (holds(token) ? 0xffffu : 0u) | (holds(token + 2) ? 0xffff0000u : 0u);
  }
  const int token = 16 * s + 4 * c + 2 * i;
  return (holds(token) ? 0x00ff00ffu : 0u) | (holds(token + 1) ? 0xff00ff00u : 0u);
}

// The staged bytes of a lane's 8 units of one block.
template <Side kSide, int d>
TQ_DEVICE void staged_units(const u8* stage, int block, int lane, u32 (&units)[8]) {
  const int r = lane / 4, c = lane % 4;
#pragma unroll
  for (int s = 0; s < 4; ++s) {
    if constexpr (kSide == Side::keys) {
      // Four neighbouring coordinates of two tokens.
      const u8* from = stage + (16 * s + 4 * (r / 2) + r % 2) * stage_stride(d) + 16 * block + 4 * c;
      const u32 low = *reinterpret_cast<const u32*>(from),
                high = *reinterpret_cast<const u32*>(from + 2 * stage_stride(d));
      units[2 * s] = permute_bytes(low, high, 0x5410u);
      units[2 * s + 1] = permute_bytes(low, high, 0x7632u);
    } else {
      // Two neighbouring coordinates of four tokens.
      const u8* from = stage + (16 * s + 4 * c) * stage_stride(d) + 16 * block + 2 * r;
      u32 pairs[4];
#pragma unroll
      for (int j = 0; j < 4; ++j) pairs[j] = *reinterpret_cast<const u16*>(from + j * stage_stride(d));
      units[2 * s] = permute_bytes(pairs[0], pairs[1], 0x5140u);
      units[2 * s + 1] = permute_bytes(pairs[2], pairs[3], 0x5140u);
    }
  }
}

// Writes the code plane of a tile's image in shared memory. Tokens before `first` are kept as they are,
// tokens from `end` on become 0, so that every byte of a tile that exists is defined. All threads of the
// block.
template <Side kSide, int d, int kBits>
TQ_DEVICE void write_codes(const u8* stage, u32* plane, int first, int end) {
  constexpr int kWords = lane_words(d, kBits);
  for (int task = threadIdx.x; task < d / kBlockCoordinates * kLanes; task += blockDim.x) {
    const int block = task / kLanes, lane = task % kLanes;
    u32 units[8], words[kBits];
    staged_units<kSide, d>(stage, block, lane, units);
    if (first > 0 || end < kTileTokens) {
#pragma unroll
      for (int u = 0; u < 8; ++u)
        units[u] &= unit_mask<kSide>(lane, u, [&](int token) { return token >= first && token < end; });
    }
    join_units<kBits>(units, words);
    if (first > 0) {
      u32 keep[kBits];
#pragma unroll
      for (int u = 0; u < 8; ++u)
        units[u] = unit_mask<kSide>(lane, u, [&](int token) { return token < first; });
      join_units<kBits>(units, keep);
#pragma unroll
      for (int w = 0; w < kBits; ++w)
        words[w] |= plane[word_index(kWords, lane, block * kBits + w)] & keep[w];
    }
#pragma unroll
    for (int w = 0; w < kBits; ++w) plane[word_index(kWords, lane, block * kBits + w)] = words[w];
  }
}

// Halves of the 64 tokens, in the order of place(token).
template <typename Place>
TQ_DEVICE void write_scalars(const u16* values, u16* plane, int first, int end, const Place& place) {
  for (int token = threadIdx.x; token < kTileTokens; token += blockDim.x) {
    if (token >= first) plane[place(token)] = token < end ? values[token] : 0;
  }
}

// A tile between global and shared memory. All threads of the block.
template <int kBytes>
TQ_DEVICE void copy_tile(const void* from, void* to) {
  static_assert(kBytes % 16 == 0);
  for (int i = threadIdx.x; i < kBytes / 16; i += blockDim.x)
    static_cast<Vector4*>(to)[i] = static_cast<const Vector4*>(from)[i];
}

// Code of one token's coordinate.
template <Side kSide, int d, int kBits>
TQ_DEVICE u32 read_code(const u32* plane, int token, int coordinate) {
  const CodePlace place = code_place(kSide, token, coordinate);
  u32 code = 0;
#pragma unroll
  for (int k = 0; k < kBits; ++k) {
    const int bit = code_bit(kBits, place.pair, place.j, k);
    code |=
        (plane[word_index(lane_words(d, kBits), place.lane, place.block * kBits + bit / 32)] >> bit % 32 & 1u)
        << k;
  }
  return code;
}

// The tile that holds the t-th 64 tokens of a sequence's head.
TQ_DEVICE u8* tile_at(const TileView& view, int sequence, int head, int t) {
  const i64 page =
      view.block_table == nullptr ? t : view.block_table[static_cast<i64>(sequence) * view.table_stride + t];
  return view.base + (view.block_table == nullptr ? sequence * view.sequence_bytes : 0) +
         page * view.page_bytes + head * view.head_bytes;
}

// Slot of x that holds the i-th token of a range.
TQ_DEVICE i64 source_slot(const TokenRange& range, int i) {
  const i64 slot = static_cast<i64>(range.source) + i;
  return range.ring == 0 ? slot : range.ring_begin + (slot - range.ring_begin) % range.ring;
}

}  // namespace tq::gpu
