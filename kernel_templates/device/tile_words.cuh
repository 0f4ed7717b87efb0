#pragma once

#include "device/ptx.cuh"
#include "shared/launch.h"
#include "shared/params.h"

// Staged codes (a byte each, 64 tokens x d in shared memory) to the words of a tile, and single codes back.
namespace tq::gpu {


// Four bytes to four codes of B bits, laid end to end.
template <int kBits>
TQ_DEVICE u32 squeeze(u32 bytes) {
  if constexpr (kBits == 8) return bytes;
  if constexpr (kBits == 4) {
    const u32 codes = bytes & 0x0f0f0f0fu;  // masks come as 0xff
    return permute_bytes(codes | codes >> 4, 0, 0x4420u);
  }
  constexpr u32 kMask = (1u << kBits) - 1;
  return (bytes & kMask) | (bytes >> (8 - kBits) & kMask << kBits) | (bytes >> (16 - 2 * kBits) & kMask << 2 * kBits) |
         (bytes >> (24 - 3 * kBits) & kMask << 3 * kBits);
}

// A lane's 8 units of one block to its B words.
template <int kBits>
TQ_DEVICE void join_units(const u32 (&units)[8], u32 (&words)[kBits]) {
#pragma unroll
  for (int w = 0; w < kBits; ++w) words[w] = 0;
#pragma unroll
  for (int u = 0; u < 8; ++u) {
    constexpr int kUnit = 4 * kBits;
    const int bit = u * kUnit, word = bit / 32, shift = bit % 32;
    words[word] |= units[u] << shift;
    if (shift + kUnit > 32) words[word + 1] |= units[u] >> (32 - shift);
  }
}

// Bytes of a unit whose tokens satisfy the predicate are 0xff.
template <Side kSide, typename Predicate>
TQ_DEVICE u32 unit_mask(int lane, int unit, const Predicate& holds) {
  const int s = unit / 2, h = unit % 2, r = lane / 4, c = lane % 4;
  if constexpr (kSide == Side::keys) return holds(16 * s + 4 * (r / 2) + r % 2 + 2 * h) ? 0xffffffffu : 0u;
  u32 mask = 0;
#pragma unroll
  for (int j = 0; j < 4; ++j) mask |= holds(16 * s + 4 * c + j) ? 0xffu << 8 * j : 0u;
  return mask;
}

// The staged bytes of a lane's 8 units of one block.
template <Side kSide, int d>
TQ_DEVICE void staged_units(const u8* stage, int block, int lane, u32 (&units)[8]) {
  const int r = lane / 4, c = lane % 4;
  if constexpr (kSide == Side::keys) {
#pragma unroll
    for (int u = 0; u < 8; ++u) {
      const int token = 16 * (u / 2) + 4 * (r / 2) + r % 2 + 2 * (u % 2);
      units[u] = *reinterpret_cast<const u32*>(stage + token * stage_stride(d) + 16 * block + 4 * c);
    }
  } else {
#pragma unroll
    for (int s = 0; s < 4; ++s) {
      // Two neighbouring coordinates of four tokens, turned into four tokens of each coordinate.
      const u8* from = stage + (16 * s + 4 * c) * stage_stride(d) + 16 * block + 2 * r;
      u32 pairs[4];
#pragma unroll
      for (int j = 0; j < 4; ++j) pairs[j] = *reinterpret_cast<const u16*>(from + j * stage_stride(d));
      const u32 low = permute_bytes(pairs[0], pairs[1], 0x5140u), high = permute_bytes(pairs[2], pairs[3], 0x5140u);
      units[2 * s] = permute_bytes(low, high, 0x5410u);
      units[2 * s + 1] = permute_bytes(low, high, 0x7632u);
    }
  }
}

// Writes the code plane of a tile's image in shared memory. Tokens before `first` are kept as they are, tokens
// from `end` on become 0, so that every byte of a tile that exists is defined. All threads of the block.
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
#pragma unroll
    for (int u = 0; u < 8; ++u) units[u] = squeeze<kBits>(units[u]);
    join_units<kBits>(units, words);
    if (first > 0) {
      u32 keep[kBits];
#pragma unroll
      for (int u = 0; u < 8; ++u)
        units[u] = squeeze<kBits>(unit_mask<kSide>(lane, u, [&](int token) { return token < first; }));
      join_units<kBits>(units, keep);
#pragma unroll
      for (int w = 0; w < kBits; ++w) words[w] |= plane[word_index(kWords, lane, block * kBits + w)] & keep[w];
    }
#pragma unroll
    for (int w = 0; w < kBits; ++w) plane[word_index(kWords, lane, block * kBits + w)] = words[w];
  }
}

// The same for the sign plane; staged signs are 0 or 1.
template <int d>
TQ_DEVICE void write_signs(const u8* stage, u32* plane, int first, int end) {
  constexpr int kWords = lane_words(d, 1);
  const auto gather = [](u32 bytes, int unit) {
    u32 bits = 0;
#pragma unroll
    for (int j = 0; j < 4; ++j) bits |= (bytes >> 8 * j & 1u) << sign_bit(unit, j);
    return bits;
  };
  for (int task = threadIdx.x; task < kWords * kLanes; task += blockDim.x) {
    const int block = task / kLanes, lane = task % kLanes;
    u32 word = 0, keep = 0, units[8];
    staged_units<Side::keys, d>(stage, block, lane, units);
#pragma unroll
    for (int u = 0; u < 8; ++u) {
      const u32 live = unit_mask<Side::keys>(lane, u, [&](int token) { return token >= first && token < end; });
      word |= gather(units[u] & live, u);
      keep |= gather(unit_mask<Side::keys>(lane, u, [&](int token) { return token < first; }), u);
    }
    u32& to = plane[word_index(kWords, lane, block)];
    to = first > 0 ? word | (to & keep) : word;
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
  constexpr int kWords = lane_words(d, kBits);
  const CodePlace place = code_place(kSide, token, coordinate);
  const int bit = (place.unit * 4 + place.j) * kBits, w = place.block * kBits + bit / 32;
  u32 code = plane[word_index(kWords, place.lane, w)] >> bit % 32;
  if (bit % 32 + kBits > 32) code |= plane[word_index(kWords, place.lane, w + 1)] << (32 - bit % 32);
  return code & ((1u << kBits) - 1);
}

// Sign of one token's coordinate: 1 for +1.
template <int d>
TQ_DEVICE u32 read_sign(const u32* plane, int token, int coordinate) {
  const CodePlace place = code_place(Side::keys, token, coordinate);
  return plane[word_index(lane_words(d, 1), place.lane, place.block)] >> sign_bit(place.unit, place.j) & 1u;
}

// The tile that holds the t-th 64 tokens of a sequence's head.
TQ_DEVICE u8* tile_at(const TileView& view, int sequence, int head, int t) {
  const i64 page = view.block_table == nullptr
                       ? t
                       : view.block_table[static_cast<i64>(sequence) * view.table_stride + t];
  return view.base + (view.block_table == nullptr ? sequence * view.sequence_bytes : 0) + page * view.page_bytes +
         head * view.head_bytes;
}

// Slot of x that holds the i-th token of a range.
TQ_DEVICE i64 source_slot(const TokenRange& range, int i) {
  const i64 slot = static_cast<i64>(range.source) + i;
  return range.ring == 0 ? slot : range.ring_begin + (slot - range.ring_begin) % range.ring;
}

}  // namespace tq::gpu
