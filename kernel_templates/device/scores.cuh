#pragma once

#include "device/score_tile.cuh"
#include "device/staging.cuh"

// gain <q, k^> for every cached token, written out: the whole, or the table's or the sign bits' part alone.
namespace tq::gpu {

template <ScoreSpec kSpec>
struct ScoreShared {
  static constexpr int d = kSpec.key.head_dim;
  QueryFragments<d, kSpec.query_tiles> rotated;
  QueryFragments<kSpec.key.prod ? d : kBlockCoordinates, kSpec.query_tiles> sketched;
};

// Blocks (share of the tiles, KV head, sequence).
template <ScoreSpec kSpec>
__global__ void __launch_bounds__(kSpec.warps * 32, 1) scores(const __grid_constant__ ScoreParams p) {
  constexpr KeySpec kKey = kSpec.key;
  constexpr int d = kKey.head_dim, kBits = kKey.table_bits, kQueryTiles = kSpec.query_tiles;
  constexpr bool kTable = kSpec.part != ScorePart::signs,
                 kSigns = kKey.prod && kSpec.part != ScorePart::table;
  constexpr bool kStaged = kSpec.stages > 0;
  constexpr int kBytes = tile_bytes(kKey), kStages = kStaged ? kSpec.stages : 1;
  using Shared = ScoreShared<kSpec>;
  using Stream = TileStream<kSpec.stages>;
  using Tables = Lookup<kBits, Side::keys, kStaged>;
  using Signs = SignLookup<kStaged>;
  static_assert(sizeof(Shared) <= score_queries_bytes(kSpec));
  const BlockMemory<score_work_bytes(kSpec), score_queries_bytes(kSpec), score_image_bytes(kSpec)> memory;
  Shared& shared = *reinterpret_cast<Shared*>(memory.queries());
  const int lane = threadIdx.x % kLanes, warp = warp_index();
  u8* images = memory.image(warp);

  follow_previous_launch();
  const int head = blockIdx.y, sequence = blockIdx.z;
  const int tokens = p.tokens[sequence], tiles = (tokens + kTileTokens - 1) / kTileTokens;
  const int begin = static_cast<int>(static_cast<i64>(blockIdx.x) * tiles / gridDim.x);
  const int end = static_cast<int>(static_cast<i64>(blockIdx.x + 1) * tiles / gridDim.x);
  if (begin >= end) return;
  int turn = 0;  // image of the next tile to start
  const auto start = [&](int tile) {
    Stream::template start<kBytes>(images + turn * kBytes,
                                   tile < end ? tile_at(p.keys, sequence, head, tile) : nullptr, lane);
    turn = turn + 1 == kStages ? 0 : turn + 1;
  };
  // Queries first: behind the tiles they would wait for memory's busiest moment.
  const i64 base =
      sequence * p.query_sequence_stride + static_cast<i64>(head) * p.group * p.query_head_stride;
  QueriesAhead<kKey> ahead;
  ahead.load(p.queries, p.query_element, base, p.query_head_stride, p.group, p.key);
  const float centroid = p.key.centroids[head * p.key.stride + (lane & ((1 << kBits) - 1))];
  // As in device/attend.cuh: wait for it before tiles keep memory busy.
  if (prepared_in_warps(kKey) && threadIdx.x < kLookupEntries)
    *reinterpret_cast<float*>(memory.work + threadIdx.x * kLookupRow + threadIdx.x % kLanes * 4) =
        ahead.arrived() + centroid;
#pragma unroll
  for (int i = 0; i < kStages; ++i) start(begin + warp + i * kSpec.warps);

  QueryFragments<d, kQueryTiles>* sketched_queries = nullptr;
  if constexpr (kKey.prod) sketched_queries = &shared.sketched;
  const auto fill_tables = [&] {
    Tables::fill(memory.work, [&](int code) { return from_lane(centroid, code); });
    if constexpr (kSigns) Signs::fill(memory.work);
  };
  prepare_queries<kKey, kQueryTiles>(p.queries, p.query_element, base, p.query_head_stride, p.group, p.key,
                                     p.gain, ahead, reinterpret_cast<float*>(memory.work), fill_tables,
                                     shared.rotated, sketched_queries);
  __syncthreads();

  const u32 tables = Tables::lane_address(memory.work), sign_table = Signs::lane_address(memory.work);
  float factors[kQueryTiles][2], sign_factors[kQueryTiles][2];
  load_factors(shared.rotated, lane, 1.0f, factors);
  if constexpr (kSigns)
    load_factors(shared.sketched, lane, p.key.alpha[head * p.key.alpha_stride], sign_factors);

  const bool in_pairs = p.out_stride % 2 == 0 && reinterpret_cast<unsigned long long>(p.out) % 8 == 0 &&
                        p.out_sequence_stride % 2 == 0;
  for (int tile = begin + warp; tile < end; tile += kSpec.warps) {
    Stream::wait();
    const u8* from = kStaged ? images + turn * kBytes : tile_at(p.keys, sequence, head, tile);
    ScoreFragments<kQueryTiles> scores;
    if constexpr (kTable) {
      u32 words[lane_words(d, kBits)];
      load_words<kStaged>(from, lane, words);
      multiply_codes<kKey, kStaged>(words, shared.rotated, lane, tables, scores);
      scale_scores(load_scalars<kStaged>(from + tile_scales_offset(kKey), lane), factors, scores);
    }
    if constexpr (kSigns) {
      ScoreFragments<kQueryTiles> signs;
      u32 words[lane_words(d, 1)];
      load_words<kStaged>(from + tile_signs_offset(kKey), lane, words);
      multiply_signs<kKey, kStaged>(words, shared.sketched, lane, sign_table, signs);
      add_scaled(load_scalars<kStaged>(from + tile_residuals_offset(kKey), lane), sign_factors, signs,
                 scores);
    }
    Stream::release();
    start(tile + kStages * kSpec.warps);

    // Lanes of neighbouring rows hold tokens t, t + 2 and t + 1, t + 3: one exchange and each has two in a
    // row.
    const bool odd = lane / 4 % 2 != 0;
    float* row = p.out + sequence * p.out_sequence_stride +
                 (static_cast<i64>(head) * p.group + lane % 4 * 2) * p.out_stride + tile * kTileTokens +
                 lane / 8 * 4 + (odd ? 2 : 0);
#pragma unroll
    for (int s = 0; s < 4; ++s) {
      const int left = tokens - (tile * kTileTokens + 16 * s + lane / 8 * 4 + (odd ? 2 : 0));
#pragma unroll
      for (int t = 0; t < kQueryTiles; ++t) {
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          const float low = scores.sum[s][t][i], high = scores.sum[s][t][2 + i];
          const float other = __shfl_xor_sync(kFullWarp, odd ? low : high, 4);
          const float pair[2] = {odd ? other : low, odd ? high : other};
          if (8 * t + lane % 4 * 2 + i >= p.group) continue;
          float* to = row + (8 * t + i) * p.out_stride + 16 * s;
          if (in_pairs && left > 1) {
            *reinterpret_cast<float2*>(to) = make_float2(pair[0], pair[1]);
            continue;
          }
#pragma unroll
          for (int k = 0; k < 2; ++k) {
            if (k < left) to[k] = pair[k];
          }
        }
      }
    }
  }
}

}  // namespace tq::gpu
