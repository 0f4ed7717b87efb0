#pragma once

#include "device/schedule.cuh"
#include "device/softmax.cuh"

// Attention over binary16 tokens: the first tokens and the recent window of a cache, and the whole of a cache
// that is not quantised.
namespace tq::gpu {

// A lane reads as many neighbouring coordinates of a token at once as head_dim allows, and the fragments take
// the coordinates in that order.
template <int d>
struct ExactOrder {
  static constexpr int kKeyVector = d % 32 == 0 ? 8 : 4;
  static constexpr int kValueVector = d % 64 == 0 ? 8 : d % 32 == 0 ? 4 : 2;

  TQ_DEVICE static FragmentPlace key(int i) {
    if constexpr (kKeyVector == 8) return {2 * (i / 32) + i % 8 / 4, i % 32 / 8};
    return tile_place(i);
  }
  TQ_DEVICE static int value(int b, int r, int h) {
    constexpr int kBlocks = kValueVector / 2;
    return 16 * kBlocks * (b / kBlocks) + kValueVector * r + 2 * (b % kBlocks) + h;
  }
};

template <int kHalves>
TQ_DEVICE void load_halves(const u16* from, u32 (&words)[kHalves / 2]) {
  if constexpr (kHalves == 8) {
    const Vector4 v = load_stream16(from);
#pragma unroll
    for (int i = 0; i < 4; ++i) words[i] = v.x[i];
  } else if constexpr (kHalves == 4) {
    const Vector2 v = *reinterpret_cast<const Vector2*>(from);
    words[0] = v.x[0];
    words[1] = v.x[1];
  } else {
    words[0] = *reinterpret_cast<const u32*>(from);
  }
}

template <AttendSpec kSpec>
TQ_DEVICE void attend_exact(const AttendParams& p, const Segment& segment, int head,
                            const QueryFragments<kSpec.head_dim, kSpec.query_tiles>& queries,
                            Softmax<kSpec.head_dim, kSpec.query_tiles>& softmax) {
  constexpr int d = kSpec.head_dim, kQueryTiles = kSpec.query_tiles;
  using Order = ExactOrder<d>;
  const int lane = threadIdx.x % kLanes, warp = threadIdx.x / kLanes, r = lane / 4, c = lane % 4;
  const SequenceState& state = segment.state;
  const int tokens = state.sinks + state.window;
  const i64 base = segment.sequence * p.exact.sequence_stride + head * p.exact.head_stride;
  // Tokens past the end are read from the last one, which exists, and weighed with 0.
  const auto row_of = [&](int token) {
    const int i = min(token, tokens - 1);
    int slot = i;
    if (i >= state.sinks) {
      slot = state.window_begin + i - state.sinks;
      if (slot >= p.exact.ring) slot -= p.exact.ring;
      slot += p.exact.ring_begin;
    }
    return base + slot * p.exact.token_stride;
  };

  float factors[kQueryTiles][2];
  load_factors(queries, lane, 1.0f, factors);

  for (int tile = segment.begin + warp; tile < segment.end && tokens > 0; tile += kSpec.warps) {
    const int first = tile * kTileTokens;
    ScoreFragments<kQueryTiles> scores;
#pragma unroll
    for (int s = 0; s < 4; ++s) {
      constexpr int kPairs = Order::kKeyVector / 4;  // blocks a load feeds
      const u16* low = p.exact.k + row_of(first + score_token(lane, s, 0)) + Order::kKeyVector * c;
      const u16* high = p.exact.k + row_of(first + score_token(lane, s, 2)) + Order::kKeyVector * c;
#pragma unroll
      for (int b = 0; b < d / kBlockCoordinates; b += kPairs) {
        u32 k_low[Order::kKeyVector / 2], k_high[Order::kKeyVector / 2];
        load_halves<Order::kKeyVector>(low + b * kBlockCoordinates, k_low);
        load_halves<Order::kKeyVector>(high + b * kBlockCoordinates, k_high);
#pragma unroll
        for (int i = 0; i < kPairs; ++i) {
          const u32 a[4] = {k_low[2 * i], k_high[2 * i], k_low[2 * i + 1], k_high[2 * i + 1]};
#pragma unroll
          for (int t = 0; t < kQueryTiles; ++t)
            multiply_accumulate(scores.sum[s][t], a,
                                queries.fragments[((b + i) * kQueryTiles + t) * kLanes + lane].x);
        }
      }
    }
#pragma unroll
    for (int s = 0; s < 4; ++s) {
#pragma unroll
      for (int t = 0; t < kQueryTiles; ++t) {
#pragma unroll
        for (int k = 0; k < 4; ++k) scores.sum[s][t][k] *= factors[t][k % 2];
      }
    }
    hide_tokens(scores, lane, tokens - first);
    softmax.weigh(scores, 0, [](const float(&)[kQueryTiles][2]) {});
#pragma unroll
    for (int s = 0; s < 4; ++s) {
      u32 weights[kQueryTiles][2];
#pragma unroll
      for (int t = 0; t < kQueryTiles; ++t) weight_fragment(scores.sum[s][t], 1.0f, 1.0f, weights[t]);
      const u16* rows[4];
#pragma unroll
      for (int j = 0; j < 4; ++j)
        rows[j] = p.exact.v + row_of(first + 16 * s + 4 * c + j) + Order::kValueVector * r;
      constexpr int kBlocks = Order::kValueVector / 2;
#pragma unroll
      for (int b = 0; b < d / kBlockCoordinates; b += kBlocks) {
        u32 v[4][kBlocks];
#pragma unroll
        for (int j = 0; j < 4; ++j) load_halves<Order::kValueVector>(rows[j] + b * kBlockCoordinates, v[j]);
#pragma unroll
        for (int i = 0; i < kBlocks; ++i) {
          const u32 a[4] = {
              permute_bytes(v[0][i], v[1][i], 0x5410u), permute_bytes(v[0][i], v[1][i], 0x7632u),
              permute_bytes(v[2][i], v[3][i], 0x5410u), permute_bytes(v[2][i], v[3][i], 0x7632u)};
#pragma unroll
          for (int t = 0; t < kQueryTiles; ++t) multiply_accumulate(softmax.output[b + i][t], a, weights[t]);
        }
      }
    }
  }
}

}  // namespace tq::gpu
