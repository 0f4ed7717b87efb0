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

template <AttendSpec kSpec>
__global__ void __launch_bounds__(kSpec.warps * 32, 1) attend(const __grid_constant__ AttendParams p) {
  constexpr int d = kSpec.head_dim, kQueryTiles = kSpec.query_tiles;
  using Shared = AttendShared<kSpec>;
  static_assert(sizeof(Shared) <= attend_queries_bytes(kSpec));
  const BlockMemory<attend_work_bytes(kSpec), attend_queries_bytes(kSpec), attend_image_bytes(kSpec),
                    kSpec.staged>
      memory;
  Shared& shared = *reinterpret_cast<Shared*>(memory.queries());
  float* scratch = reinterpret_cast<float*>(memory.work);
  constexpr float kLog2e = 1.4426950408889634f;
  const float gain = p.softmax_scale * kLog2e;

  const Schedule schedule(p);
  const int end = schedule.end();
  for (int tile = schedule.begin(); tile < end;) {
    const Segment segment = schedule.at(tile);
    tile += segment.count();
    const Heads heads(p, segment, query_heads(kQueryTiles));
    const int slot = Schedule::slot(blockIdx.x, segment.row, segment.exact);
    constexpr int kHeads = query_heads(kQueryTiles);
    const Partial partial{p.partial_output + static_cast<i64>(slot) * kHeads * d,
                          p.partial_softmax + static_cast<i64>(slot) * kHeads * 2};
    const i64 queries = segment.sequence * p.query_sequence_stride + heads.first_query * p.query_head_stride;
    if (kSpec.quantised && !segment.exact) {
      if constexpr (kSpec.quantised) {
        AttendTiles<kSpec> tiles(p, segment, heads.kv_head, memory.image(warp_index()));
        prepare_queries<kSpec.key, kQueryTiles>(p.queries, p.query_element, queries, p.query_head_stride,
                                                heads.count, p.key, gain, scratch, shared.queries[0],
                                                kSpec.key.prod ? &shared.queries[1] : nullptr);
        tiles.attend(memory.work, shared.queries, heads.count, partial);
      }
    } else {
      const auto load = [&](int head, int i) {
        return load_element(p.query_element, p.queries, queries + head * p.query_head_stride + i);
      };
      store_fragments(load, heads.count, gain, shared.queries[0],
                      [](int i) { return ExactOrder<d>::key(i); });
      __syncthreads();
      attend_exact<kSpec>(p, segment, heads.kv_head, heads.count, memory.work, shared.queries[0], partial);
    }
    finish_row<kSpec>(p, schedule, segment, heads, scratch);
    __syncthreads();  // shared memory is free for the next segment
  }
}

}  // namespace tq::gpu
