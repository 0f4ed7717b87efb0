#pragma once

#include "shared/tile_layout.h"

// Threads and dynamic shared memory of a block: the host asks for them, the kernels assert them.
namespace tq::gpu {

inline constexpr int kWhtThreads = 256;
inline constexpr int kMixedThreads = 128;
inline constexpr int kRotateThreads = 256;
inline constexpr int kEncodeThreads = 256;
inline constexpr int kDecodeThreads = 256;
inline constexpr int kScoreThreads = 128;
inline constexpr int kCombineThreads = 128;
inline constexpr int kAppendThreads = 128;

// The search grid (64 cells x 16 copies of 8 bytes), centroids (32 copies) and boundaries of
// device/quantiser.cuh.
TQ_SHARED int quantiser_bytes(int table_bits) {
  return 64 * 16 * 8 + (1 << table_bits) * kLanes * 4 + 16 * 4;
}

// Bytes from one token's staged codes to the next: a word more than a token takes, so that tokens differ in
// their banks.
TQ_SHARED int stage_stride(int head_dim) { return head_dim + 4; }

TQ_SHARED int encode_shared_bytes(const EncodeSpec& spec) {
  const bool vectors = spec.key.prod || spec.key.rotation == Mixing::dense;
  return (vectors ? kTileTokens * spec.key.head_dim * 4 : 16) + tile_bytes(spec.key) +
         quantiser_bytes(spec.key.table_bits) + kTileTokens * stage_stride(spec.key.head_dim) +
         kTileTokens * 8;
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

// Look-up tables of device/lookup.cuh: one row of 256 bytes an entry, keys in the first half, values in the
// second.
TQ_SHARED int lookup_entries(int bits) {
  return bits == 1 ? 16 : bits == 2 ? 256 : bits == 3 ? 64 : bits == 4 ? 256 : 0;
}
inline constexpr int kLookupRow = 256;

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

TQ_SHARED int score_work_bytes(const ScoreSpec& spec) {
  return largest(lookup_entries(spec.key.table_bits) * kLookupRow,
                 query_scratch_bytes(spec.key.head_dim, spec.query_tiles));
}
TQ_SHARED int score_shared_bytes(const ScoreSpec& spec) {
  return score_work_bytes(spec) + 2 * query_fragment_bytes(spec.key.head_dim, spec.query_tiles);
}

TQ_SHARED int attend_lookup_bytes(const AttendSpec& spec) {
  if (!spec.quantised) return 0;
  return kLookupRow *
         largest(lookup_entries(spec.key.table_bits),
                 lookup_entries(spec.value.rotated ? spec.value.table.table_bits : spec.value.group.bits));
}
// A warp's sums: of each head d outputs, a maximum and a sum, and two words that keep heads in different
// banks.
TQ_SHARED int attend_merge_bytes(const AttendSpec& spec) {
  return spec.warps * query_heads(spec.query_tiles) * (spec.head_dim + 4) * 4;
}
// Scratch, then tables, then the merge: one after the other.
TQ_SHARED int attend_work_bytes(const AttendSpec& spec) {
  return largest(largest(attend_lookup_bytes(spec), attend_merge_bytes(spec)),
                 query_scratch_bytes(spec.head_dim, spec.query_tiles));
}
TQ_SHARED int attend_shared_bytes(const AttendSpec& spec) {
  const bool sketched = spec.quantised && spec.key.prod;
  return attend_work_bytes(spec) + (sketched ? 2 : 1) * query_fragment_bytes(spec.head_dim, spec.query_tiles);
}

}  // namespace tq::gpu
