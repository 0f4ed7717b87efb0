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

// In the place of QueriesAhead and AttendTiles where nothing is quantised.
struct NoQueries {
  TQ_DEVICE void load(const void*, Element, i64, i64, int, const KeyTableParams&) {}
};
struct NoTiles {
  TQ_DEVICE NoTiles(const AttendParams&, u8*) {}
  TQ_DEVICE void begin(const Segment&, int) {}
};
template <AttendSpec kSpec, bool kQuantised = kSpec.quantised>
struct TilesOf {
  using Type = AttendTiles<kSpec>;
  using Queries = QueriesAhead<kSpec.key>;
};
template <AttendSpec kSpec>
struct TilesOf<kSpec, false> {
  using Type = NoTiles;
  using Queries = NoQueries;
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

  const Schedule schedule(p);
  int tile = schedule.begin();
  const int end = schedule.end();
  if (tile >= end) return;
  typename TilesOf<kSpec>::Type tiles(p, memory.image(warp_index()));
  typename TilesOf<kSpec>::Queries ahead;
  const auto query_offset = [&](const Segment& segment, const Heads& heads) {
    return segment.sequence * p.query_sequence_stride + heads.first_query * p.query_head_stride;
  };
  // Queries first: behind the tiles they would wait for memory's busiest moment.
  const auto begin = [&](const Segment& segment) {
    if (segment.exact) return;
    const Heads heads(p, segment, kHeads);
    ahead.load(p.queries, p.query_element, query_offset(segment, heads), p.query_head_stride, heads.count,
               p.key);
    tiles.begin(segment, heads.kv_head);
  };
  Segment segment = schedule.at(tile);
  begin(segment);
  for (;;) {
    const Heads heads(p, segment, kHeads);
    tile += segment.count();
    const auto begin_next = [&] {
      if (tile < end) begin(schedule.at(tile));
    };
    // A row's only segment leaves its sums to this block, others theirs to whichever finishes the row.
    const int slot = Schedule::slot(blockIdx.x, segment.row, segment.exact);
    const Partial partial = segment.is_whole_row()
                                ? Partial{row.sums(segment.exact), row.softmax}
                                : Partial{p.partial_output + static_cast<i64>(slot) * kHeads * d,
                                          p.partial_softmax + static_cast<i64>(slot) * kHeads * 2};
    const i64 queries = query_offset(segment, heads);
    if (segment.exact) {
      begin_next();
      const auto load = [&](int head, int i, float(&pair)[2]) {
        load_elements(p.query_element, p.queries, queries + head * p.query_head_stride + i, pair);
      };
      store_fragments(load, heads.count, gain, shared.queries[0],
                      [](int i) { return ExactOrder<d>::key(i); });
      __syncthreads();
      attend_exact<kSpec>(p, segment, heads.kv_head, heads.count, memory.work, shared.queries[0], partial);
    } else if constexpr (kSpec.quantised) {
      prepare_queries<kSpec.key, kQueryTiles>(
          p.queries, p.query_element, queries, p.query_head_stride, heads.count, p.key, gain, ahead,
          reinterpret_cast<float*>(memory.work), [&] { tiles.fill_tables(memory.work); }, shared.queries[0],
          kSpec.key.prod ? &shared.queries[1] : nullptr);
      __syncthreads();
      tiles.attend(memory.work, shared.queries, segment.state.quantised, heads.count, partial, begin_next);
    }
    finish_row<kSpec>(p, schedule, segment, heads, row);
    if (tile >= end) return;
    segment = schedule.at(tile);
    __syncthreads();  // shared memory is free for the next segment
  }
}

}  // namespace tq::gpu
