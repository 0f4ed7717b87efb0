#pragma once

#include "device/score_tile.cuh"

// gain <q, k^> for every cached token, written out: the whole, or the table's or the sign bits' part alone.
namespace tq::gpu {


template <ScoreSpec kSpec>
struct ScoreShared {
  static constexpr int d = kSpec.key.head_dim;
  QueryFragments<d, kSpec.query_tiles> rotated;
  QueryFragments<kSpec.key.prod ? d : kBlockCoordinates, kSpec.query_tiles> sketched;
};

template <ScoreSpec kSpec>
__global__ void __launch_bounds__(kScoreThreads) scores(const __grid_constant__ ScoreParams p) {
  constexpr KeySpec kKey = kSpec.key;
  constexpr int d = kKey.head_dim, kBits = kKey.table_bits, kQueryTiles = kSpec.query_tiles;
  constexpr bool kTable = kSpec.part != ScorePart::signs, kSigns = kKey.prod && kSpec.part != ScorePart::table;
  using Shared = ScoreShared<kSpec>;
  static_assert(score_work_bytes(kSpec) + sizeof(Shared) <= score_shared_bytes(kSpec));
  Shared& shared = *reinterpret_cast<Shared*>(reinterpret_cast<char*>(dynamic_shared) + score_work_bytes(kSpec));

  const int head = blockIdx.y, sequence = blockIdx.z;
  const int tokens = p.tokens[sequence], tiles = (tokens + kTileTokens - 1) / kTileTokens;
  const int begin = blockIdx.x * p.tiles_per_block, end = min(begin + p.tiles_per_block, tiles);
  if (begin >= end) return;

  const i64 base = sequence * p.query_sequence_stride + static_cast<i64>(head) * p.group * p.query_head_stride;
  QueryFragments<d, kQueryTiles>* sketched_queries = nullptr;
  if constexpr (kKey.prod) sketched_queries = &shared.sketched;
  prepare_queries<kKey, kQueryTiles>(p.queries, p.query_element, base, p.query_head_stride, p.group, p.key, p.gain,
                                                    reinterpret_cast<float*>(dynamic_shared), shared.rotated,
                                                    sketched_queries);
  const float* centroids = p.key.centroids + head * p.key.stride;
  Lookup<kBits, Side::keys>::fill([&](u32 i) { return centroids[i]; });
  __syncthreads();

  const int lane = threadIdx.x % kLanes, warp = threadIdx.x / kLanes;
  const u32 offset = Lookup<kBits, Side::keys>::lane_offset();
  const LaneQueries<d, kQueryTiles, false> rotated(shared.rotated, lane);
  float factors[kQueryTiles][2], sign_factors[kQueryTiles][2];
  load_factors(shared.rotated, lane, 1.0f, factors);

  for (int tile = begin + warp; tile < end; tile += kScoreThreads / kLanes) {
    const u8* from = tile_at(p.keys, sequence, head, tile);
    ScoreFragments<kQueryTiles> scores;
    if constexpr (kTable) {
      u32 words[lane_words(d, kBits)];
      load_words(from, lane, words);
      multiply_codes<kKey>(words, rotated, offset, scores);
      scale_scores(load_scalars(from + tile_scales_offset(kKey), lane), factors, scores);
    }
    if constexpr (kSigns) {
      ScoreFragments<kQueryTiles> signs;
      const LaneQueries<d, kQueryTiles, false> sketched(shared.sketched, lane);
      load_factors(shared.sketched, lane, p.key.alpha[head * p.key.alpha_stride], sign_factors);
      u32 words[lane_words(d, 1)];
      load_words(from + tile_signs_offset(kKey), lane, words);
      multiply_signs<kKey>(words, sketched, signs);
      scale_scores(load_scalars(from + tile_residuals_offset(kKey), lane), sign_factors, signs);
#pragma unroll
      for (int i = 0; i < 4 * kQueryTiles * 4; ++i) (&scores.sum[0][0][0])[i] += (&signs.sum[0][0][0])[i];
    }
#pragma unroll
    for (int s = 0; s < 4; ++s) {
#pragma unroll
      for (int t = 0; t < kQueryTiles; ++t) {
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          const int token = tile * kTileTokens + score_token(lane, s, e), query = 8 * t + lane % 4 * 2 + e % 2;
          if (token < tokens && query < p.group)
            p.out[sequence * p.out_sequence_stride +
                  (static_cast<i64>(head) * p.group + query) * p.out_stride + token] = scores.sum[s][t][e];
        }
      }
    }
  }
}

}  // namespace tq::gpu
