#pragma once

#include "device/softmax.cuh"

// Attention over tiles: keys and values straight from their codes.
namespace tq::gpu {

TQ_DEVICE int clamped_exponent(u32 half_magnitude) {
  return min(max(static_cast<int>(half_magnitude >> 10) - 15, -14), 15);
}
TQ_DEVICE u32 largest_half(u32 pair) { return max(pair & 0x7fffu, pair >> 16 & 0x7fffu); }

// Rotated values: one scale a token.
template <KeySpec kTable, int kQueryTiles>
struct TableValues {
  static constexpr int d = kTable.head_dim, kBits = kTable.table_bits;
  using Codes = Lookup<kBits, Side::values>;
  u32 words[lane_words(d, kBits)];
  LaneScalars scales;

  TQ_DEVICE void load(const u8* tile, int lane) {
    load_words(tile, lane, words);
    scales = load_scalars(tile + tile_scales_offset(kTable), lane);
  }
  TQ_DEVICE int exponent(const u8*, int) const {
    const u32 mine = max(max(largest_half(scales.x[0]), largest_half(scales.x[1])),
                         max(largest_half(scales.x[2]), largest_half(scales.x[3])));
    return clamped_exponent(__reduce_max_sync(kFullWarp, mine));
  }
  TQ_DEVICE void rescale(const float (&)[kQueryTiles][2]) {}
  TQ_DEVICE void add(const u8*, int, int exponent, u32 offset, const ScoreFragments<kQueryTiles>& weights,
                     float (&output)[d / kBlockCoordinates][kQueryTiles][4]) {
    const float unit = __int_as_float((127 - exponent) << 23);
    u32 b[4][kQueryTiles][2];
#pragma unroll
    for (int s = 0; s < 4; ++s) {
#pragma unroll
      for (int t = 0; t < kQueryTiles; ++t)
        weight_fragment(weights.sum[s][t], scales[2 * s] * unit, scales[2 * s + 1] * unit, b[s][t]);
    }
#pragma unroll
    for (int m = 0; m < d / kBlockCoordinates; ++m) {
      static_for<4>([&](auto s) {
        u32 a[4];
        Codes::template fragment<decltype(s)::value>(words + m * kBits, offset, a);
#pragma unroll
        for (int t = 0; t < kQueryTiles; ++t) multiply_accumulate(output[m][t], a, b[decltype(s)::value][t]);
      });
    }
  }
  template <int kWarps, typename Softmax>
  TQ_DEVICE void finish(Softmax&, int) {}
};

// Group values: the zeros' share is a product of its own, groups x tokens times tokens x heads.
template <GroupSpec kGroup, int kQueryTiles>
struct GroupValues {
  static constexpr int d = kGroup.head_dim, kBits = kGroup.bits, kGroups = d / kGroup.group_size;
  static constexpr int kBlocks = kGroup.group_size / kBlockCoordinates;  // of 16 coordinates a group
  static_assert(kGroups <= 16 && kGroup.group_size % kBlockCoordinates == 0);
  using Codes = Lookup<kBits, Side::values>;
  u32 words[lane_words(d, kBits)];
  float zero_sum[kQueryTiles][4] = {};  // fragment C: groups x heads

  TQ_DEVICE void load(const u8* tile, int lane) { load_words(tile, lane, words); }
  TQ_DEVICE static const u32* zeros(const u8* tile) {
    return reinterpret_cast<const u32*>(tile + tile_zeros_offset(kGroup));
  }
  TQ_DEVICE static const u32* scales(const u8* tile) {
    return reinterpret_cast<const u32*>(tile + tile_scales_offset(kGroup));
  }
  TQ_DEVICE int exponent(const u8* tile, int lane) const {
    u32 mine = 0;
#pragma unroll
    for (int g = 0; g < kGroups; ++g)
      mine = max(mine, max(largest_half(zeros(tile)[g * kLanes + lane]), largest_half(scales(tile)[g * kLanes + lane])));
    return clamped_exponent(__reduce_max_sync(kFullWarp, mine));
  }
  TQ_DEVICE void rescale(const float (&factor)[kQueryTiles][2]) {
#pragma unroll
    for (int t = 0; t < kQueryTiles; ++t) {
#pragma unroll
      for (int k = 0; k < 4; ++k) zero_sum[t][k] *= factor[t][k % 2];
    }
  }
  TQ_DEVICE void add(const u8* tile, int lane, int exponent, u32 offset, const ScoreFragments<kQueryTiles>& weights,
                     float (&output)[d / kBlockCoordinates][kQueryTiles][4]) {
    const u32 unit = pack_half2(__int_as_float((127 - exponent) << 23), __int_as_float((127 - exponent) << 23));
    const int r = lane / 4, c = lane % 4;
    u32 b[4][kQueryTiles][2];
#pragma unroll
    for (int s = 0; s < 4; ++s) {
#pragma unroll
      for (int t = 0; t < kQueryTiles; ++t) weight_fragment(weights.sum[s][t], 1.0f, 1.0f, b[s][t]);
      // Row r of A is group r, columns the sub-tile's tokens 4 c .. 4 c + 3.
      u32 a[4] = {};
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        if (r + 8 * h < kGroups) {
          const Vector2 z = reinterpret_cast<const Vector2*>(zeros(tile))[(r + 8 * h) * 16 + 4 * s + c];
          a[h] = multiply_half2(z.x[0], unit);
          a[2 + h] = multiply_half2(z.x[1], unit);
        }
      }
#pragma unroll
      for (int t = 0; t < kQueryTiles; ++t) multiply_accumulate(zero_sum[t], a, b[s][t]);
    }
#pragma unroll
    for (int g = 0; g < kGroups; ++g) {
      static_for<4>([&](auto s) {
        const Vector2 scale = reinterpret_cast<const Vector2*>(scales(tile))[g * 16 + 4 * decltype(s)::value + c];
        const u32 low = multiply_half2(scale.x[0], unit), high = multiply_half2(scale.x[1], unit);
        u32 scaled[kQueryTiles][2];
#pragma unroll
        for (int t = 0; t < kQueryTiles; ++t) {
          scaled[t][0] = multiply_half2(b[decltype(s)::value][t][0], low);
          scaled[t][1] = multiply_half2(b[decltype(s)::value][t][1], high);
        }
#pragma unroll
        for (int m = g * kBlocks; m < (g + 1) * kBlocks; ++m) {
          u32 a[4];
          Codes::template fragment<decltype(s)::value>(words + m * kBits, offset, a);
#pragma unroll
          for (int t = 0; t < kQueryTiles; ++t) multiply_accumulate(output[m][t], a, scaled[t]);
        }
      });
    }
  }
  // Every coordinate of a group gets the group's sum; `staging` is a warp's own shared memory.
  template <int kWarps, typename Softmax>
  TQ_DEVICE void finish(Softmax& softmax, int lane) {
    __syncthreads();  // the tables are no longer read
    float* staging = reinterpret_cast<float*>(dynamic_shared) + threadIdx.x / kLanes * (8 * kQueryTiles * 17);
#pragma unroll
    for (int t = 0; t < kQueryTiles; ++t) {
#pragma unroll
      for (int k = 0; k < 4; ++k)
        staging[(8 * t + lane % 4 * 2 + k % 2) * 17 + lane / 4 + 8 * (k / 2)] = zero_sum[t][k];
    }
    __syncwarp();
#pragma unroll
    for (int m = 0; m < d / kBlockCoordinates; ++m) {
#pragma unroll
      for (int t = 0; t < kQueryTiles; ++t) {
#pragma unroll
        for (int k = 0; k < 4; ++k)
          softmax.output[m][t][k] += staging[(8 * t + lane % 4 * 2 + k % 2) * 17 + m / kBlocks];
      }
    }
  }
};

template <bool kRotated, ValueSpec kValue, int kQueryTiles>
struct ValueTileOf {
  using Type = TableValues<kValue.table, kQueryTiles>;
};
template <ValueSpec kValue, int kQueryTiles>
struct ValueTileOf<false, kValue, kQueryTiles> {
  using Type = GroupValues<kValue.group, kQueryTiles>;
};

// Row r + 8 h of block b of a value fragment (shared/tile_layout.h).
TQ_DEVICE int value_coordinate(int b, int r, int h) { return 16 * b + 2 * r + h; }

template <AttendSpec kSpec, typename Fragments>
TQ_DEVICE void attend_tiles(const AttendParams& p, int sequence, int head, int group, int split, const Fragments& shared_rotated,
                            const Fragments* shared_sketched, float* partial_output, float* partial_softmax) {
  constexpr KeySpec kKey = kSpec.key;
  constexpr int d = kSpec.head_dim, kBits = kKey.table_bits, kQueryTiles = kSpec.query_tiles;
  constexpr int kValueBits = kSpec.value.rotated ? kSpec.value.table.table_bits : kSpec.value.group.bits;
  constexpr bool kKept = d * kQueryTiles * (kKey.prod ? 2 : 1) <= 128;
  using Values = typename ValueTileOf<kSpec.value.rotated, kSpec.value, kQueryTiles>::Type;

  const float* centroids = p.key.centroids + head * p.key.stride;
  Lookup<kBits, Side::keys>::fill([&](u32 i) { return centroids[i]; });
  const float* value_centroids = p.value_centroids + head * p.value_table_stride;
  Lookup<kValueBits, Side::values>::fill([&](u32 i) {
    return kSpec.value.rotated ? value_centroids[i] : static_cast<float>(i);
  });
  __syncthreads();

  const int lane = threadIdx.x % kLanes, warp = threadIdx.x / kLanes;
  const int tokens = p.sequences[sequence].quantised, tiles = (tokens + kTileTokens - 1) / kTileTokens;
  const int share = (tiles + p.tile_splits - 1) / p.tile_splits;
  const int begin = split * share, end = min(begin + share, tiles);
  const u32 key_offset = Lookup<kBits, Side::keys>::lane_offset();
  const u32 value_offset = Lookup<kValueBits, Side::values>::lane_offset();

  const LaneQueries<d, kQueryTiles, kKept> rotated(shared_rotated, lane);
  float factors[kQueryTiles][2], sign_factors[kQueryTiles][2];
  load_factors(shared_rotated, lane, 1.0f, factors);
  if constexpr (kKey.prod) load_factors(*shared_sketched, lane, p.key.alpha[head * p.key.alpha_stride], sign_factors);

  Softmax<d, kQueryTiles> softmax;
  Values values;
  u32 words[lane_words(d, kBits)];
  int tile = begin + warp;
  const u8* keys = nullptr;
  if (tile < end) {
    keys = tile_at(p.keys, sequence, head, tile);
    load_words(keys, lane, words);
  }
  for (; tile < end; tile += kSpec.warps) {
    // The values are on their way while the keys are scored, the next keys while the values are added up.
    const u8* value_tile = tile_at(p.values, sequence, head, tile);
    values.load(value_tile, lane);
    ScoreFragments<kQueryTiles> scores;
    multiply_codes<kKey>(words, rotated, key_offset, scores);
    scale_scores(load_scalars(keys + tile_scales_offset(kKey), lane), factors, scores);
    if constexpr (kKey.prod) {
      const LaneQueries<d, kQueryTiles, kKept> sketched(*shared_sketched, lane);
      ScoreFragments<kQueryTiles> signs;
      u32 sign_words[lane_words(d, 1)];
      load_words(keys + tile_signs_offset(kKey), lane, sign_words);
      multiply_signs<kKey>(sign_words, sketched, signs);
      scale_scores(load_scalars(keys + tile_residuals_offset(kKey), lane), sign_factors, signs);
#pragma unroll
      for (int s = 0; s < 4; ++s) {
#pragma unroll
        for (int t = 0; t < kQueryTiles; ++t) {
#pragma unroll
          for (int k = 0; k < 4; ++k) scores.sum[s][t][k] += signs.sum[s][t][k];
        }
      }
    }
    if (tile + kSpec.warps < end) {
      keys = tile_at(p.keys, sequence, head, tile + kSpec.warps);
      load_words(keys, lane, words);
    }
    hide_tokens(scores, lane, tokens - tile * kTileTokens);
    const int exponent = values.exponent(value_tile, lane);
    softmax.weigh(scores, exponent, [&](const float(&factor)[kQueryTiles][2]) { values.rescale(factor); });
    values.add(value_tile, lane, exponent, value_offset, scores, softmax.output);
  }
  values.template finish<kSpec.warps>(softmax, lane);
  merge_warps<d, kQueryTiles, kSpec.warps>(softmax, group, partial_output, partial_softmax, value_coordinate);
}

}  // namespace tq::gpu
