#pragma once

#include "shared/hadamard_lanes.h"
#include "shared/tile_layout.h"

// Threads and dynamic shared memory of a block: the host asks for them, the kernels assert them.
namespace tq::gpu {

inline constexpr int kWhtThreads = 256;
inline constexpr int kMixedThreads = 128;
inline constexpr int kRotateThreads = 256;
inline constexpr int kEncodeThreads = 256;
inline constexpr int kDecodeThreads = 256;
inline constexpr int kAppendThreads = 128;

// What device/wht_halves.cuh takes: 16-bit elements, one of Paley's factors, and a matrix small enough to be
// multiplied whole. A warp has 16 rows in shared memory, a piece of 16 bytes more than they take apart, so
// that rows differ in their banks.
TQ_SHARED bool transforms_halves(const WhtSpec& spec) {
  const int odd = odd_part(spec.order);
  return spec.element != Element::f32 && spec.order % 16 == 0 && spec.order <= 256 && odd > 1 && odd <= 9;
}
inline constexpr int kWhtHalvesThreads = 128, kWhtHalvesRows = 16;
TQ_SHARED int wht_halves_stride(int order) { return order * 2 + 16; }
TQ_SHARED int wht_halves_shared_bytes(int order) {
  return kWhtHalvesThreads / kLanes * kWhtHalvesRows * wht_halves_stride(order);
}

// The search grid (65 cells x 16 copies of 8 bytes), centroids (32 copies) and boundaries of
// device/quantiser.cuh.
TQ_SHARED int quantiser_bytes(int table_bits) {
  return 65 * 16 * 8 + (1 << table_bits) * kLanes * 4 + 16 * 4;
}

// Bytes from one token's staged codes to the next: a word more than a token takes, so that tokens differ in
// their banks.
TQ_SHARED int stage_stride(int head_dim) { return head_dim + 4; }

TQ_SHARED int encode_shared_bytes(const EncodeSpec& spec) {
  const bool vectors = spec.key.prod || spec.key.rotation == Mixing::dense;
  return (vectors ? kTileTokens * spec.key.head_dim * 4 : 16) + tile_bytes(spec.key) +
         quantiser_bytes(spec.key.table_bits) + kTileTokens * stage_stride(spec.key.head_dim) +
         kTileTokens * (spec.key.prod ? 8 : 6) + 16;
}

// What device/encode_halves.cuh takes, of vectors that are binary16 or become it: the orders of
// device/tensor_hadamard.cuh, the codes of device/tile_parts.cuh.
TQ_SHARED bool encodes_halves(const EncodeSpec& spec) {
  const int d = spec.key.head_dim;
  return (d == 64 || d == 128 || d == 256) && spec.key.table_bits >= 2 && !spec.key.prod &&
         spec.key.rotation == Mixing::hadamard && spec.layout == Layout::tiles;
}
// Words of a lane's codes of a block, on their way to a tile.
TQ_SHARED int plane_words(int bits) { return bits == 3 ? 4 : bits; }
TQ_SHARED int plane_bytes(int head_dim, int bits) {
  return head_dim / kBlockCoordinates * plane_words(bits) * kLanes * 4;
}
TQ_SHARED int encode_halves_shared_bytes(const EncodeSpec& spec) {
  const int bits = spec.key.table_bits, sums = spec.key.scale == ScaleRule::nc ? 1 << 2 * bits : 1;
  return 2 * plane_bytes(spec.key.head_dim, bits) + quantiser_bytes(bits) + sums * kLanes * 4 +
         2 * kScalarPlaneBytes + spec.key.head_dim * 2;
}

TQ_SHARED int group_shared_bytes(const GroupSpec& group) {
  return tile_bytes(group) + kTileTokens * stage_stride(group.head_dim) +
         4 * kTileTokens * (group.head_dim / group.group_size);
}

// Vectors of device/decode.cuh and device/rotate.cuh.
inline constexpr int kVectorRows = 32;
TQ_SHARED int decode_shared_bytes(const KeySpec& key) {
  return kVectorRows * key.head_dim * 4 * (key.prod ? 2 : 1);
}
TQ_SHARED int rotate_shared_bytes(const KeySpec& key) { return kVectorRows * key.head_dim * 4; }

// Look-up tables of device/lookup.cuh: a row for every byte, keys in its first half, values in the second;
// behind them, for sketched keys, the signs.
inline constexpr int kLookupEntries = 256, kLookupRow = 256;
inline constexpr int kLookupBytes = kLookupEntries * kLookupRow, kSignLookupBytes = 16 * 128;
TQ_SHARED int lookup_bytes(const KeySpec& key) { return kLookupBytes + (key.prod ? kSignLookupBytes : 0); }

TQ_SHARED int query_heads(int query_tiles) { return 8 * query_tiles; }

// Queries on their way to fragments, float32, twice; their place is the tables' afterwards.
TQ_SHARED int query_scratch_bytes(int head_dim, int query_tiles) {
  return 2 * query_heads(query_tiles) * head_dim * 4;
}
// binary16 fragments and a factor a head.
TQ_SHARED int query_fragment_bytes(int head_dim, int query_tiles) {
  return query_heads(query_tiles) * (head_dim * 2 + 4);
}
TQ_SHARED int largest(int a, int b) { return a > b ? a : b; }

// Shared memory of a block that stages tiles: work (tables above all) begins at a multiple of 64 KB, where a
// byte of codes becomes an address in one instruction; what lies below it, but for the 1 KB that the system
// keeps, takes the queries and the first warps' tiles, what follows it the others'.
//
//   | 1 KB | queries | tiles |  64 KB: work  | tiles |          unstaged:  | 1 KB | work | queries |
inline constexpr int kTablesAlignment = 64 << 10, kSystemShared = 1 << 10;
TQ_SHARED int low_images(int queries_bytes, int image_bytes) {
  return (kTablesAlignment - kSystemShared - queries_bytes) / image_bytes;
}
// image: of all tiles that a warp has on their way; 0 where tiles are not staged.
TQ_SHARED int block_bytes(int work, int queries, int image, int warps) {
  if (image == 0) return work + queries;
  return kTablesAlignment + work + largest(0, warps - low_images(queries, image)) * image;
}

TQ_SHARED int score_work_bytes(const ScoreSpec& spec) {
  return largest(lookup_bytes(spec.key), query_scratch_bytes(spec.key.head_dim, spec.query_tiles));
}
TQ_SHARED int score_queries_bytes(const ScoreSpec& spec) {
  return 2 * query_fragment_bytes(spec.key.head_dim, spec.query_tiles);
}
TQ_SHARED int score_image_bytes(const ScoreSpec& spec) { return spec.stages * tile_bytes(spec.key); }
TQ_SHARED int score_shared_bytes(const ScoreSpec& spec) {
  return block_bytes(score_work_bytes(spec), score_queries_bytes(spec), score_image_bytes(spec), spec.warps);
}

// A warp's sums: of each head d outputs, a maximum and a sum, and two words that keep heads in different
// banks.
TQ_SHARED int attend_merge_bytes(const AttendSpec& spec) {
  return spec.warps * query_heads(spec.query_tiles) * (spec.head_dim + 4) * 4;
}
// A row's outputs, twice, and two words a head; the weights of the slots that share it take the merge's
// place.
TQ_SHARED int combine_scratch_bytes(const AttendSpec& spec) {
  return query_heads(spec.query_tiles) * (2 * spec.head_dim + 2) * 4;
}
// The most slots of a row: a launch has fewer blocks.
inline constexpr int kCombineSlots = 160;
// The queries' scratch, then tables, then the merge with the row's behind it: one after the other.
TQ_SHARED int attend_work_bytes(const AttendSpec& spec) {
  const int tables =
      spec.quantised ? largest(lookup_bytes(spec.key), query_scratch_bytes(spec.head_dim, spec.query_tiles))
                     : 0;
  return largest(tables, attend_merge_bytes(spec) + combine_scratch_bytes(spec));
}
TQ_SHARED int attend_queries_bytes(const AttendSpec& spec) {
  const bool sketched = spec.quantised && spec.key.prod;
  return (sketched ? 2 : 1) * query_fragment_bytes(spec.head_dim, spec.query_tiles);
}
TQ_SHARED int attend_image_bytes(const AttendSpec& spec) {
  return spec.quantised ? spec.stages * (tile_bytes(spec.key) + tile_bytes(spec.value)) : 0;
}
TQ_SHARED int attend_shared_bytes(const AttendSpec& spec) {
  return block_bytes(attend_work_bytes(spec), attend_queries_bytes(spec), attend_image_bytes(spec),
                     spec.warps);
}

}  // namespace tq::gpu
