#pragma once

#include "device/lookup.cuh"
#include "device/queries.cuh"

// Scores of a warp's 64 tokens straight from their codes, on the tensor cores.
namespace tq::gpu {

// sum[s][t]: fragment C of sub-tile s and query tile t; rows are tokens, columns query heads.
template <int kQueryTiles>
struct ScoreFragments {
  float sum[4][kQueryTiles][4] = {};
};

// Query fragments that a lane keeps, or reads again for every tile where they would fill the register file.
template <int d, int kQueryTiles, bool kKept>
struct LaneQueries {
  const QueryFragments<d, kQueryTiles>& from;
  int lane;
  Vector2 kept[kKept ? d / kBlockCoordinates * kQueryTiles : 1];

  TQ_DEVICE LaneQueries(const QueryFragments<d, kQueryTiles>& fragments, int lane_index)
      : from(fragments), lane(lane_index) {
    if constexpr (kKept) {
#pragma unroll
      for (int i = 0; i < d / kBlockCoordinates * kQueryTiles; ++i) kept[i] = from.fragments[i * kLanes + lane];
    }
  }
  TQ_DEVICE const u32 (&at(int block, int t) const)[2] {
    if constexpr (kKept) return kept[block * kQueryTiles + t].x;
    return from.fragments[(block * kQueryTiles + t) * kLanes + lane].x;
  }
};

template <KeySpec kKey, int kQueryTiles, bool kKept>
TQ_DEVICE void multiply_codes(const u32 (&words)[lane_words(kKey.head_dim, kKey.table_bits)],
                              const LaneQueries<kKey.head_dim, kQueryTiles, kKept>& queries, u32 offset,
                              ScoreFragments<kQueryTiles>& scores) {
#pragma unroll
  for (int b = 0; b < kKey.head_dim / kBlockCoordinates; ++b) {
    static_for<4>([&](auto s) {
      u32 a[4];
      Lookup<kKey.table_bits, Side::keys>::template fragment<decltype(s)::value>(words + b * kKey.table_bits, offset, a);
#pragma unroll
      for (int t = 0; t < kQueryTiles; ++t)
        multiply_accumulate(scores.sum[decltype(s)::value][t], a, queries.at(b, t));
    });
  }
}

template <KeySpec kKey, int kQueryTiles, bool kKept>
TQ_DEVICE void multiply_signs(const u32 (&words)[lane_words(kKey.head_dim, 1)],
                              const LaneQueries<kKey.head_dim, kQueryTiles, kKept>& queries,
                              ScoreFragments<kQueryTiles>& scores) {
#pragma unroll
  for (int b = 0; b < kKey.head_dim / kBlockCoordinates; ++b) {
    static_for<4>([&](auto s) {
      u32 a[4];
      sign_fragment<decltype(s)::value>(words[b], a);
#pragma unroll
      for (int t = 0; t < kQueryTiles; ++t)
        multiply_accumulate(scores.sum[decltype(s)::value][t], a, queries.at(b, t));
    });
  }
}

// The 8 scalars (scale_place) of a lane's tokens: index 2 s + h.
struct LaneScalars {
  u32 x[4];
  TQ_DEVICE float operator[](int i) const { return half_to_float(static_cast<u16>(x[i / 2] >> 16 * (i % 2))); }
};
TQ_DEVICE LaneScalars load_scalars(const u8* plane, int lane) {
  const Vector4 v = load_stream16(plane + lane / 4 * 16);
  return {v.x[0], v.x[1], v.x[2], v.x[3]};
}

// scores = scale_token factor_head scores.
template <int kQueryTiles>
TQ_DEVICE void scale_scores(const LaneScalars& scales, const float (&factors)[kQueryTiles][2],
                            ScoreFragments<kQueryTiles>& scores) {
#pragma unroll
  for (int s = 0; s < 4; ++s) {
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      const float scale = scales[2 * s + e / 2];
#pragma unroll
      for (int t = 0; t < kQueryTiles; ++t) scores.sum[s][t][e] *= scale * factors[t][e % 2];
    }
  }
}

template <int d, int kQueryTiles>
TQ_DEVICE void load_factors(const QueryFragments<d, kQueryTiles>& from, int lane, float gain,
                            float (&factors)[kQueryTiles][2]) {
#pragma unroll
  for (int t = 0; t < kQueryTiles; ++t) {
#pragma unroll
    for (int i = 0; i < 2; ++i) factors[t][i] = from.factors[8 * t + lane % 4 * 2 + i] * gain;
  }
}

// Token within the tile of a lane's row e / 2 of sub-tile s.
TQ_DEVICE int score_token(int lane, int s, int e) {
  const int r = lane / 4;
  return 16 * s + 4 * (r / 2) + r % 2 + 2 * (e / 2);
}

}  // namespace tq::gpu
