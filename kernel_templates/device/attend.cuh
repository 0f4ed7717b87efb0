#pragma once

#include "device/attend_exact.cuh"
#include "device/attend_tiles.cuh"
#include "device/finish_row.cuh"

// One decode step of a layer: softmax(scale q k^T) v over everything a cache holds, in one launch of any
// number of blocks. Each works off its piece of the line of tiles (device/schedule.cuh); who adds the last
// tile of a row puts the row's sums together.
namespace tq::gpu {

template <AttendSpec kSpec>
struct AttendShared {
  QueryFragments<kSpec.head_dim, kSpec.query_tiles> queries[kSpec.quantised && kSpec.key.prod ? 2 : 1];
};

TQ_DEVICE i64 query_offset(const AttendParams& p, const Segment& segment, const Heads& heads) {
  return segment.sequence * p.query_sequence_stride + heads.first_query * p.query_head_stride;
}

// In the place of QueriesAhead and AttendTiles where nothing is quantised.
struct NoQueries {
  TQ_DEVICE float arrived() const { return 0; }
  TQ_DEVICE void load(const void*, Element, i64, i64, int, const KeyTableParams&) {}
};
struct NoTiles {
  TQ_DEVICE NoTiles(const AttendParams&, u8*) {}
  TQ_DEVICE void begin(const Segment&, int) {}
  TQ_DEVICE void start() {}
  template <typename Queries, typename Sums>
  TQ_DEVICE void attend(char*, const Queries*, int, Sums&) {}
  TQ_DEVICE float arrived() const { return 0; }
};
template <AttendSpec kSpec, bool kQuantised = kSpec.quantised>
struct TilesOf {
  using Type = AttendTiles<kSpec>;
  using Queries = QueriesAhead<kSpec.key>;
  static constexpr bool kTablesFirst = prepared_in_warps(kSpec.key);
};
template <AttendSpec kSpec>
struct TilesOf<kSpec, false> {
  using Type = NoTiles;
  using Queries = NoQueries;
  static constexpr bool kTablesFirst = false;
};

template <AttendSpec kSpec>
__global__ void __launch_bounds__(kSpec.warps * 32, 1) attend(const __grid_constant__ AttendParams p) {
  constexpr int d = kSpec.head_dim, kQueryTiles = kSpec.query_tiles, kHeads = query_heads(kQueryTiles);
  using Shared = AttendShared<kSpec>;
  using Row = RowScratch<kSpec>;
  static_assert(sizeof(Shared) <= attend_queries_bytes(kSpec) && sizeof(Row) <= combine_scratch_bytes(kSpec));
  const BlockMemory<attend_work_bytes(kSpec), attend_queries_bytes(kSpec), attend_image_bytes(kSpec)> memory;
  Shared& shared = *reinterpret_cast<Shared*>(memory.queries());
  Row& row = *reinterpret_cast<Row*>(memory.work + attend_merge_bytes(kSpec));
  constexpr float kLog2e = 1.4426950408889634f;
  const float gain = p.softmax_scale * kLog2e;

  follow_previous_launch();
  const Schedule schedule(p);
  const int end = schedule.end();
  typename TilesOf<kSpec>::Type tiles(p, memory.image(warp_index()));
  typename TilesOf<kSpec>::Queries ahead;
  Softmax<d, kQueryTiles> softmax;
  Segment segment;
  bool first = true;
  // A turn attends to a segment and, before it puts the sums together, asks for what the next one begins
  // with.
  for (int tile = schedule.begin();; first = false) {
    softmax.reset();
    if (!first && segment.exact) {
      attend_exact<kSpec>(p, segment, Heads(p, segment, kHeads).kv_head, shared.queries[0], softmax);
    } else if (!first) {
      tiles.attend(memory.work, shared.queries, segment.state.quantised, softmax);
    }
    Segment next;
    const bool more = tile < end;
    if (more) {
      next = schedule.at(tile);
      tile += next.count();
      if (!next.exact) {
        const Heads heads(p, next, kHeads);
        ahead.load(p.queries, p.query_element, query_offset(p, next, heads), p.query_head_stride, heads.count,
                   p.key);
        tiles.begin(next, heads.kv_head);
        // The first tiles of all blocks at once keep memory busy for microseconds, and what was asked for
        // just before would wait behind other blocks' tiles: a store of it, to where this thread writes its
        // row of the tables, waits until it has arrived.
        if (TilesOf<kSpec>::kTablesFirst && first && threadIdx.x < kLookupEntries)
          *reinterpret_cast<float*>(memory.work + threadIdx.x * kLookupRow + threadIdx.x % kLanes * 4) =
              ahead.arrived() + tiles.arrived();
        tiles.start();
      }
    }
    if (!first) {
      const Heads heads(p, segment, kHeads);
      // A row's only segment leaves its sums to this block, others theirs to whichever finishes the row.
      const i64 slot = Schedule::slot(blockIdx.x, segment.row, segment.exact);
      const Partial partial = segment.is_whole_row() ? Partial{row.sums(segment.exact), row.softmax}
                                                     : Partial{p.partial_output + slot * kHeads * d,
                                                               p.partial_softmax + slot * kHeads * 2};
      merge_warps<d, kQueryTiles, kSpec.warps>(
          softmax, memory.work, heads.count, partial, [&](int b, int r, int h) {
            return segment.exact ? ExactOrder<d>::value(b, r, h) : value_coordinate(b, r, h);
          });
      finish_row<kSpec>(p, schedule, segment, heads, row, reinterpret_cast<float*>(memory.work));
      if (more) __syncthreads();  // shared memory is free for the next segment
    }
    if (!more) return;
    segment = next;
    const Heads heads(p, segment, kHeads);
    const i64 queries = query_offset(p, segment, heads);
    if (segment.exact) {
      const auto load = [&](int head, int i, float(&pair)[2]) {
        load_elements(p.query_element, p.queries, queries + head * p.query_head_stride + i, pair);
      };
      store_fragments(load, heads.count, gain, shared.queries[0],
                      [](int i) { return ExactOrder<d>::key(i); });
    } else if constexpr (kSpec.quantised) {
      prepare_queries<kSpec.key, kQueryTiles>(
          p.queries, p.query_element, queries, p.query_head_stride, heads.count, p.key, gain, ahead,
          reinterpret_cast<float*>(memory.work), [&] { tiles.fill_tables(memory.work); }, shared.queries[0],
          kSpec.key.prod ? &shared.queries[1] : nullptr);
    }
    __syncthreads();
  }
}

}  // namespace tq::gpu
