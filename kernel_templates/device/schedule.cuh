#pragma once

#include "device/ptx.cuh"
#include "shared/launch.h"
#include "shared/params.h"

// Who attends to what in a launch. All tiles of all rows stand in one line, cut into equal pieces, one a
// block: every block has the same work whatever the sequences' lengths. A row is a KV head of a sequence with
// its query heads (or those of them that fit a block); of its tiles the binary16 tokens' come first, then the
// quantised ones.
//
//   row 0            row 1         row 2
//   |e q q q q q q|e q q q|e q q q q q q q q|
//   |  block 0  |  block 1  |  block 2  | ..       e: exact (binary16), q: quantised
//
// What a block attends to of one row and of one kind is a segment. Its sums go to slot block + 2 row + kind:
// from one segment to the next at least one of the three grows and none shrinks, so no two share a slot.
namespace tq::gpu {

struct RowTiles {
  int exact, quantised;
  TQ_DEVICE int all() const { return exact + quantised; }
};

// An empty sequence has one tile without tokens, for somebody to write its zeros.
TQ_DEVICE RowTiles row_tiles(const SequenceState& state) {
  const int quantised = (state.quantised + kTileTokens - 1) / kTileTokens;
  const int exact = (state.sinks + state.window + kTileTokens - 1) / kTileTokens;
  return {exact + quantised == 0 ? 1 : exact, quantised};
}

struct Segment {
  int sequence, row, row_begin;  // the row's first tile in the line
  RowTiles tiles;                // of the row
  bool exact;
  int begin, end;  // among the row's tiles of the kind
  TQ_DEVICE int count() const { return end - begin; }
};

class Schedule {
 public:
  // All lanes of a warp take part here and in `at`.
  TQ_DEVICE explicit Schedule(const AttendParams& params)
      : p_(params), rows_(params.kv_heads * params.group_parts) {
    total_ = 0;
    for (int base = 0; base < p_.sequence_count; base += kLanes) total_ += last_lane(scan(tiles_of(base)));
    // With fewer tiles than blocks the last blocks have none, so that all before them have one.
    blocks_ = min(static_cast<int>(gridDim.x), total_);
    share_ = total_ / blocks_;
    longer_ = total_ % blocks_;
  }

  TQ_DEVICE int first_tile(int block) const { return min(block, blocks_) * share_ + min(block, longer_); }
  TQ_DEVICE int begin() const { return first_tile(blockIdx.x); }
  TQ_DEVICE int end() const { return first_tile(blockIdx.x + 1); }

  // The segment that begins at a tile of the line and ends with the row, the kind or the block.
  TQ_DEVICE Segment at(int tile) const {
    int before = 0;
    for (int base = 0;; base += kLanes) {
      const int tiles = tiles_of(base), until = before + scan(tiles);
      const u32 behind = __ballot_sync(kFullWarp, until > tile);
      if (behind == 0) {
        before = last_lane(until);
        continue;
      }
      const int lane = __ffs(static_cast<int>(behind)) - 1;
      const int first = __shfl_sync(kFullWarp, until - tiles, lane);
      Segment s;
      s.sequence = base + lane;
      s.tiles = row_tiles(p_.sequences[s.sequence]);
      const int row = (tile - first) / s.tiles.all(), offset = (tile - first) % s.tiles.all();
      s.row = s.sequence * rows_ + row;
      s.row_begin = first + row * s.tiles.all();
      s.exact = offset < s.tiles.exact;
      s.begin = s.exact ? offset : offset - s.tiles.exact;
      s.end = min(s.exact ? s.tiles.exact : s.tiles.quantised, s.begin + end() - tile);
      return s;
    }
  }

  // Slots of one kind of a row: a consecutive run.
  struct Slots {
    int first, count;
  };
  TQ_DEVICE Slots slots(const Segment& s, bool exact) const {
    const int tiles = exact ? s.tiles.exact : s.tiles.quantised;
    if (tiles == 0) return {0, 0};
    const int begin = s.row_begin + (exact ? 0 : s.tiles.exact);
    const int first = block_of(begin), last = block_of(begin + tiles - 1);
    return {slot(first, s.row, exact), last - first + 1};
  }
  TQ_DEVICE static int slot(int block, int row, bool exact) { return block + 2 * row + (exact ? 0 : 1); }

 private:
  TQ_DEVICE int block_of(int tile) const {
    const int in_longer = longer_ * (share_ + 1);
    return tile < in_longer ? tile / (share_ + 1) : longer_ + (tile - in_longer) / share_;
  }
  // Tiles of all rows of this lane's sequence.
  TQ_DEVICE int tiles_of(int base) const {
    const int sequence = base + static_cast<int>(threadIdx.x % kLanes);
    return sequence < p_.sequence_count ? rows_ * row_tiles(p_.sequences[sequence]).all() : 0;
  }
  TQ_DEVICE static int scan(int x) {
#pragma unroll
    for (int distance = 1; distance < kLanes; distance <<= 1) {
      const int other = __shfl_up_sync(kFullWarp, x, distance);
      if (static_cast<int>(threadIdx.x % kLanes) >= distance) x += other;
    }
    return x;
  }
  TQ_DEVICE static int last_lane(int x) { return __shfl_sync(kFullWarp, x, kLanes - 1); }

  const AttendParams& p_;
  int rows_, total_, blocks_;  // rows of a sequence; tiles in the line; blocks that have some
  int share_, longer_;         // tiles of a block, one more in the first `longer_`
};

}  // namespace tq::gpu
