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
  int sequence, row, row_begin;  // the row among all, and its first tile in the line
  int row_of_sequence;
  RowTiles tiles;  // of the row
  bool exact;
  int begin, end;  // among the row's tiles of the kind
  SequenceState state;
  TQ_DEVICE int count() const { return end - begin; }
  TQ_DEVICE bool is_whole_row() const { return count() == tiles.all(); }
};

class Schedule {
 public:
  // All lanes of a warp take part here and in `at`.
  TQ_DEVICE explicit Schedule(const AttendParams& params)
      : p_(params), rows_(params.kv_heads * params.group_parts), first_(batch(0)) {
    total_ = last_lane(first_.until);
#pragma unroll 1
    for (int base = kLanes; base < p_.sequence_count; base += kLanes) total_ += last_lane(batch(base).until);
    // With fewer tiles than blocks the last blocks have none, so that all before them have one.
    blocks_ = min(static_cast<int>(gridDim.x), total_);
    share_ = divide(total_, blocks_);
    longer_ = total_ - share_ * blocks_;
  }

  TQ_DEVICE int first_tile(int block) const { return min(block, blocks_) * share_ + min(block, longer_); }
  TQ_DEVICE int begin() const { return first_tile(blockIdx.x); }
  TQ_DEVICE int end() const { return first_tile(blockIdx.x + 1); }

  // The segment that begins at a tile of the line and ends with the row, the kind or the block.
  TQ_DEVICE Segment at(int tile) const {
    Batch lanes = first_;
    for (int base = 0, before = 0;;) {
      const int until = before + lanes.until;
      const u32 behind = __ballot_sync(kFullWarp, until > tile);
      if (behind == 0) {
        before = last_lane(until);
        base += kLanes;
        lanes = batch(base);
        continue;
      }
      const int lane = __ffs(static_cast<int>(behind)) - 1;
      const auto of_lane = [&](int x) { return __shfl_sync(kFullWarp, x, lane); };
      const int offset = tile - of_lane(until - lanes.tiles);
      Segment s;
      s.sequence = base + lane;
      s.state = {of_lane(lanes.state.quantised), of_lane(lanes.state.sinks), of_lane(lanes.state.window),
                 of_lane(lanes.state.window_begin)};
      s.tiles = row_tiles(s.state);
      s.row_of_sequence = divide(offset, s.tiles.all());
      s.row = s.sequence * rows_ + s.row_of_sequence;
      const int of_row = offset - s.row_of_sequence * s.tiles.all();
      s.row_begin = tile - of_row;
      s.exact = of_row < s.tiles.exact;
      s.begin = s.exact ? of_row : of_row - s.tiles.exact;
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
  // Unsigned division takes half the instructions.
  TQ_DEVICE static int divide(int a, int b) {
    return static_cast<int>(static_cast<u32>(a) / static_cast<u32>(b));
  }
  TQ_DEVICE int block_of(int tile) const {
    const int in_longer = longer_ * (share_ + 1);
    return tile < in_longer ? divide(tile, share_ + 1) : longer_ + divide(tile - in_longer, share_);
  }

  // A sequence a lane.
  struct Batch {
    SequenceState state;
    int tiles, until;  // of all rows of the sequence; with those of the lanes before
  };
  TQ_DEVICE Batch batch(int base) const {
    const int sequence = base + static_cast<int>(threadIdx.x % kLanes);
    Batch lane{};
    if (sequence < p_.sequence_count) {
      lane.state = p_.sequences[sequence];
      lane.tiles = rows_ * row_tiles(lane.state).all();
    }
    lane.until = scan(lane.tiles);
    return lane;
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
  int rows_;  // of a sequence
  Batch first_;
  int total_, blocks_;  // tiles in the line; blocks that have some
  int share_, longer_;  // tiles of a block, one more in the first `longer_`
};

}  // namespace tq::gpu
