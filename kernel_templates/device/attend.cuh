#pragma once

#include "device/attend_exact.cuh"
#include "device/attend_tiles.cuh"

// One decode step of a layer: softmax(scale q k^T) v over everything a cache holds, in splits that
// device/combine.cuh puts together. Blocks (split, KV head and part of its query heads, sequence): the first
// `tile_splits` share the tiles, the others the binary16 tokens.
namespace tq::gpu {

template <AttendSpec kSpec>
struct AttendShared {
  QueryFragments<kSpec.head_dim, kSpec.query_tiles> queries[kSpec.quantised && kSpec.key.prod ? 2 : 1];
};

template <AttendSpec kSpec>
__global__ void __launch_bounds__(kSpec.warps * 32) attend(const __grid_constant__ AttendParams p) {
  constexpr int d = kSpec.head_dim, kQueryTiles = kSpec.query_tiles;
  using Shared = AttendShared<kSpec>;
  static_assert(attend_work_bytes(kSpec) + sizeof(Shared) <= attend_shared_bytes(kSpec));
  Shared& shared = *reinterpret_cast<Shared*>(reinterpret_cast<char*>(dynamic_shared) + attend_work_bytes(kSpec));
  float* scratch = reinterpret_cast<float*>(dynamic_shared);

  const int split = blockIdx.x, head = blockIdx.y / p.group_blocks, sequence = blockIdx.z;
  const int first_query = blockIdx.y % p.group_blocks * query_heads(kQueryTiles);
  const int group = min(p.group - first_query, query_heads(kQueryTiles));
  const int splits = p.tile_splits + p.exact_splits;
  const i64 partial = ((static_cast<i64>(sequence) * p.kv_heads + head) * splits + split) * p.group + first_query;
  float *output = p.partial_output + partial * d, *softmax = p.partial_softmax + partial * 2;
  const i64 base = sequence * p.query_sequence_stride +
                   (static_cast<i64>(head) * p.group + first_query) * p.query_head_stride;
  constexpr float kLog2e = 1.4426950408889634f;
  const float gain = p.softmax_scale * kLog2e;
  if constexpr (kSpec.quantised) {
    if (split < p.tile_splits) {
      prepare_queries<kSpec.key, kQueryTiles>(
          p.queries, p.query_element, base, p.query_head_stride, group, p.key, gain, scratch, shared.queries[0],
          kSpec.key.prod ? &shared.queries[1] : nullptr);
      attend_tiles<kSpec>(p, sequence, head, group, split, shared.queries[0], &shared.queries[1], output, softmax);
      return;
    }
  }
  load_queries<d, kQueryTiles>(p.queries, p.query_element, base, p.query_head_stride, group, scratch);
  store_fragments<d>(scratch, shared.queries[0], gain,
                     [](int b, int c, int j) { return ExactOrder<d>::key(b, c, j); });
  attend_exact<kSpec>(p, sequence, head, group, split - p.tile_splits, shared.queries[0], output, softmax);
}

}  // namespace tq::gpu
