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

template <KeySpec kKey, bool kAligned, int kQueryTiles>
TQ_DEVICE void multiply_codes(const u32 (&words)[lane_words(kKey.head_dim, kKey.table_bits)],
                              const QueryFragments<kKey.head_dim, kQueryTiles>& queries, int lane, u32 tables,
                              ScoreFragments<kQueryTiles>& scores) {
#pragma unroll
  for (int b = 0; b < kKey.head_dim / kBlockCoordinates; ++b) {
    Vector2 query[kQueryTiles];
#pragma unroll
    for (int t = 0; t < kQueryTiles; ++t) query[t] = queries.fragments[(b * kQueryTiles + t) * kLanes + lane];
    static_for<4>([&](auto s) {
      u32 a[4];
      Lookup<kKey.table_bits, Side::keys, kAligned>::template fragment<decltype(s)::value>(
          words + b * kKey.table_bits, tables, a);
#pragma unroll
      for (int t = 0; t < kQueryTiles; ++t)
        multiply_accumulate(scores.sum[decltype(s)::value][t], a, query[t].x);
    });
  }
}

template <KeySpec kKey, bool kAligned, int kQueryTiles>
TQ_DEVICE void multiply_signs(const u32 (&words)[lane_words(kKey.head_dim, 1)],
                              const QueryFragments<kKey.head_dim, kQueryTiles>& queries, int lane, u32 tables,
                              ScoreFragments<kQueryTiles>& scores) {
#pragma unroll
  for (int b = 0; b < kKey.head_dim / kBlockCoordinates; ++b) {
    Vector2 query[kQueryTiles];
#pragma unroll
    for (int t = 0; t < kQueryTiles; ++t) query[t] = queries.fragments[(b * kQueryTiles + t) * kLanes + lane];
    static_for<4>([&](auto s) {
      u32 a[4];
      SignLookup<kAligned>::template fragment<decltype(s)::value>(words[b], tables, a);
#pragma unroll
      for (int t = 0; t < kQueryTiles; ++t)
        multiply_accumulate(scores.sum[decltype(s)::value][t], a, query[t].x);
    });
  }
}

// The 8 scalars (scale_place) of a lane's tokens: index 2 s + h.
struct LaneScalars {
  u32 x[4];
  TQ_DEVICE float operator[](int i) const {
    return half_to_float(static_cast<u16>(x[i / 2] >> 16 * (i % 2)));
  }
};
template <bool kStaged>
TQ_DEVICE LaneScalars load_scalars(const u8* plane, int lane) {
  const Vector4 v = load16<kStaged>(plane + lane / 4 * 16);
  return {v.x[0], v.x[1], v.x[2], v.x[3]};
}

// f(s, t, e, scale_token factor_head) for every score of the lane.
template <int kQueryTiles, typename F>
TQ_DEVICE void for_scaled(const LaneScalars& scales, const float (&factors)[kQueryTiles][2], const F& f) {
#pragma unroll
  for (int s = 0; s < 4; ++s) {
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      const float scale = scales[2 * s + e / 2];
#pragma unroll
      for (int t = 0; t < kQueryTiles; ++t) f(s, t, e, scale * factors[t][e % 2]);
    }
  }
}
// scores = scale_token factor_head scores.
template <int kQueryTiles>
TQ_DEVICE void scale_scores(const LaneScalars& scales, const float (&factors)[kQueryTiles][2],
                            ScoreFragments<kQueryTiles>& scores) {
  for_scaled(scales, factors, [&](int s, int t, int e, float gain) { scores.sum[s][t][e] *= gain; });
}
// scores += scale_token factor_head signs.
template <int kQueryTiles>
TQ_DEVICE void add_scaled(const LaneScalars& scales, const float (&factors)[kQueryTiles][2],
                          const ScoreFragments<kQueryTiles>& signs, ScoreFragments<kQueryTiles>& scores) {
  for_scaled(scales, factors, [&](int s, int t, int e, float gain) {
    scores.sum[s][t][e] = fmaf(signs.sum[s][t][e], gain, scores.sum[s][t][e]);
  });
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
