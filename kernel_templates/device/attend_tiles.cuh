#pragma once

#include "device/schedule.cuh"
#include "device/softmax.cuh"
#include "device/staging.cuh"

// Attention over tiles: keys and values straight from their codes.
namespace tq::gpu {

TQ_DEVICE int clamped_exponent(u32 half_magnitude) {
  return min(max(static_cast<int>(half_magnitude >> 10) - 15, -14), 15);
}
TQ_DEVICE u32 largest_half(u32 pair) { return max(pair & 0x7fffu, pair >> 16 & 0x7fffu); }

// Rotated values: one scale a token.
template <KeySpec kTable, int kQueryTiles, bool kStaged>
struct TableValues {
  static constexpr int d = kTable.head_dim, kBits = kTable.table_bits;
  using Codes = Lookup<kBits, Side::values, kStaged>;
  LaneScalars scales;

  // Exponent of the largest scale of the tile.
  TQ_DEVICE int exponent(const u8* tile, int lane) {
    scales = load_scalars<kStaged>(tile + tile_scales_offset(kTable), lane);
    const u32 mine = max(max(largest_half(scales.x[0]), largest_half(scales.x[1])),
                         max(largest_half(scales.x[2]), largest_half(scales.x[3])));
    return clamped_exponent(__reduce_max_sync(kFullWarp, mine));
  }
  TQ_DEVICE void rescale(const float (&)[kQueryTiles][2]) {}
  TQ_DEVICE void add(const u8* tile, int lane, int exponent, u32 tables,
                     const ScoreFragments<kQueryTiles>& weights,
                     float (&output)[d / kBlockCoordinates][kQueryTiles][4]) {
    const float unit = __int_as_float((127 - exponent) << 23);
    u32 words[lane_words(d, kBits)], b[4][kQueryTiles][2];
    load_words<kStaged>(tile, lane, words);
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
        Codes::template fragment<decltype(s)::value>(words + m * kBits, tables, a);
#pragma unroll
        for (int t = 0; t < kQueryTiles; ++t) multiply_accumulate(output[m][t], a, b[decltype(s)::value][t]);
      });
    }
  }
  TQ_DEVICE void finish(Softmax<d, kQueryTiles>&, char*, int) {}
};

// Group values, code scale + zero, as (code - middle) scale + (zero + middle scale): codes and zeros nearly
// cancel otherwise, and the rounding of weights and scales to binary16 would weigh twice. The second part is
// a product of its own, groups x tokens times tokens x heads.
template <GroupSpec kGroup, int kQueryTiles, bool kStaged>
struct GroupValues {
  static constexpr int d = kGroup.head_dim, kBits = kGroup.bits, kGroups = d / kGroup.group_size;
  static constexpr int kBlocks = kGroup.group_size / kBlockCoordinates;  // of 16 coordinates a group
  static_assert(kGroups <= 16 && kGroup.group_size % kBlockCoordinates == 0);
  using Codes = Lookup<kBits, Side::values, kStaged>;
  float zero_sum[kQueryTiles][4] = {};  // fragment C: groups x heads

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
      mine = max(mine, max(largest_half(zeros(tile)[g * kLanes + lane]),
                           largest_half(scales(tile)[g * kLanes + lane])));
    return clamped_exponent(__reduce_max_sync(kFullWarp, mine));
  }
  TQ_DEVICE void rescale(const float (&factor)[kQueryTiles][2]) {
#pragma unroll
    for (int t = 0; t < kQueryTiles; ++t) {
#pragma unroll
      for (int k = 0; k < 4; ++k) zero_sum[t][k] *= factor[t][k % 2];
    }
  }
  TQ_DEVICE void add(const u8* tile, int lane, int exponent, u32 tables,
                     const ScoreFragments<kQueryTiles>& weights,
                     float (&output)[d / kBlockCoordinates][kQueryTiles][4]) {
    const u32 unit =
        pack_half2(__int_as_float((127 - exponent) << 23), __int_as_float((127 - exponent) << 23));
    const u32 middle = pack_half2(group_middle(kBits), group_middle(kBits));
    const int r = lane / 4, c = lane % 4;
    u32 words[lane_words(d, kBits)], b[4][kQueryTiles][2];
    load_words<kStaged>(tile, lane, words);
#pragma unroll
    for (int s = 0; s < 4; ++s) {
#pragma unroll
      for (int t = 0; t < kQueryTiles; ++t) weight_fragment(weights.sum[s][t], 1.0f, 1.0f, b[s][t]);
      // Row r of A is group r, columns the sub-tile's tokens 4 c .. 4 c + 3.
      u32 a[4] = {};
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        if (r + 8 * h < kGroups) {
          const int at = (r + 8 * h) * 16 + 4 * s + c;
          const Vector2 z = reinterpret_cast<const Vector2*>(zeros(tile))[at];
          const Vector2 scale = reinterpret_cast<const Vector2*>(scales(tile))[at];
#pragma unroll
          for (int i = 0; i < 2; ++i)
            a[2 * i + h] = fused_multiply_add_half2(multiply_half2(scale.x[i], unit), middle,
                                                    multiply_half2(z.x[i], unit));
        }
      }
#pragma unroll
      for (int t = 0; t < kQueryTiles; ++t) multiply_accumulate(zero_sum[t], a, b[s][t]);
    }
#pragma unroll
    for (int g = 0; g < kGroups; ++g) {
      static_for<4>([&](auto s) {
        const Vector2 scale =
            reinterpret_cast<const Vector2*>(scales(tile))[g * 16 + 4 * decltype(s)::value + c];
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
          Codes::template fragment<decltype(s)::value>(words + m * kBits, tables, a);
#pragma unroll
          for (int t = 0; t < kQueryTiles; ++t) multiply_accumulate(output[m][t], a, scaled[t]);
        }
      });
    }
  }
  // Every coordinate of a group gets the group's sum, through a warp's own part of `work`.
  TQ_DEVICE void finish(Softmax<d, kQueryTiles>& softmax, char* work, int lane) {
    __syncthreads();  // the tables are no longer read
    float* staging = reinterpret_cast<float*>(work) + threadIdx.x / kLanes * (8 * kQueryTiles * 17);
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

template <bool kRotated, ValueSpec kValue, int kQueryTiles, bool kStaged>
struct ValueTileOf {
  using Type = TableValues<kValue.table, kQueryTiles, kStaged>;
};
template <ValueSpec kValue, int kQueryTiles, bool kStaged>
struct ValueTileOf<false, kValue, kQueryTiles, kStaged> {
  using Type = GroupValues<kValue.group, kQueryTiles, kStaged>;
};

// Row r + 8 h of block b of a value fragment (shared/tile_layout.h).
TQ_DEVICE int value_coordinate(int b, int r, int h) { return 16 * b + 2 * r + h; }

// Segments of quantised tiles, one after the other. `start` puts the first tiles on their way, so that
// whatever is done before `attend` hides their latency; then keys are copied while the values before them are
// added up, and values while keys are scored.
template <AttendSpec kSpec>
class AttendTiles {
  static constexpr KeySpec kKey = kSpec.key;
  static constexpr int d = kSpec.head_dim, kBits = kKey.table_bits, kQueryTiles = kSpec.query_tiles;
  static constexpr int kValueBits =
      kSpec.value.rotated ? kSpec.value.table.table_bits : kSpec.value.group.bits;
  static constexpr int kKeyBytes = tile_bytes(kKey), kValueBytes = tile_bytes(kSpec.value);
  static constexpr bool kStaged = kSpec.stages > 0;
  static constexpr int kStages = kStaged ? kSpec.stages : 1;
  using Stream = TileStream<2 * kSpec.stages>;
  using Values = typename ValueTileOf<kSpec.value.rotated, kSpec.value, kQueryTiles, kStaged>::Type;
  using KeyLookup = Lookup<kBits, Side::keys, kStaged>;
  using ValueLookup = Lookup<kValueBits, Side::values, kStaged>;
  using Signs = SignLookup<kStaged>;

 public:
  // images: where this warp stages tiles.
  TQ_DEVICE AttendTiles(const AttendParams& params, u8* images)
      : p_(params), lane_(threadIdx.x % kLanes), images_(images) {}

  TQ_DEVICE void begin(const Segment& segment, int head) {
    sequence_ = segment.sequence;
    head_ = head;
    first_ = segment.begin + warp_index();
    end_ = segment.end;
    const int code = lane_ & ((1 << kBits) - 1), value_code = lane_ & ((1 << kValueBits) - 1);
    key_centroid_ = p_.key.centroids[head_ * p_.key.stride + code];
    value_centroid_ = kSpec.value.rotated ? p_.value_centroids[head_ * p_.value_table_stride + value_code]
                                          : static_cast<float>(value_code) - group_middle(kValueBits);
    if constexpr (kKey.prod) alpha_ = p_.key.alpha[head_ * p_.key.alpha_stride];
  }
  // Read once what was asked for has arrived.
  TQ_DEVICE float arrived() const { return key_centroid_ + value_centroid_; }
  TQ_DEVICE void start() {
#pragma unroll
    for (int i = 0; i < kStages; ++i) {
      start_keys(first_ + i * kSpec.warps, i);
      start_values(first_ + i * kSpec.warps, i);
    }
  }

  // All threads of the block; the caller synchronises.
  TQ_DEVICE void fill_tables(char* work) const {
    KeyLookup::fill(work, [&](int code) { return from_lane(key_centroid_, code); });
    ValueLookup::fill(work, [&](int code) { return from_lane(value_centroid_, code); });
    if constexpr (kKey.prod) Signs::fill(work);
  }

  // Attends to the segment that was begun: `tokens` of its sequence are quantised. work: the tables;
  // queries[0] rotated, queries[1] sketched (prod). All threads of the block.
  TQ_DEVICE void attend(char* work, const QueryFragments<d, kQueryTiles>* queries, int tokens,
                        Softmax<d, kQueryTiles>& softmax) {
    float factors[kQueryTiles][2], sign_factors[kQueryTiles][2];
    load_factors(queries[0], lane_, 1.0f, factors);
    if constexpr (kKey.prod) load_factors(queries[1], lane_, alpha_, sign_factors);
    const u32 key_tables = KeyLookup::lane_address(work), value_tables = ValueLookup::lane_address(work);
    const u32 signs = Signs::lane_address(work);
    Values values;
    int turn = 0;  // the stage of this tile, and of the one that takes its place
    for (int tile = first_; tile < end_; tile += kSpec.warps) {
      const int next = tile + kStages * kSpec.warps;
      Stream::wait();
      const u8* keys = kStaged ? key_image(turn) : tile_at(p_.keys, sequence_, head_, tile);
      ScoreFragments<kQueryTiles> scores;
      score(keys, queries, key_tables, signs, factors, sign_factors, scores);
      Stream::release();
      start_keys(next, turn);
      hide_tokens(scores, lane_, tokens - tile * kTileTokens);

      Stream::wait();
      const u8* value_tile = kStaged ? value_image(turn) : tile_at(p_.values, sequence_, head_, tile);
      const int exponent = values.exponent(value_tile, lane_);
      softmax.weigh(scores, exponent, [&](const float(&factor)[kQueryTiles][2]) { values.rescale(factor); });
      values.add(value_tile, lane_, exponent, value_tables, scores, softmax.output);
      Stream::release();
      start_values(next, turn);
      turn = turn + 1 == kStages ? 0 : turn + 1;
    }
    values.finish(softmax, work, lane_);
  }

 private:
  TQ_DEVICE u8* key_image(int stage) const { return images_ + stage * (kKeyBytes + kValueBytes); }
  TQ_DEVICE u8* value_image(int stage) const { return key_image(stage) + kKeyBytes; }
  TQ_DEVICE void start_keys(int tile, int stage) {
    Stream::template start<kKeyBytes>(
        key_image(stage), tile < end_ ? tile_at(p_.keys, sequence_, head_, tile) : nullptr, lane_);
  }
  TQ_DEVICE void start_values(int tile, int stage) {
    Stream::template start<kValueBytes>(
        value_image(stage), tile < end_ ? tile_at(p_.values, sequence_, head_, tile) : nullptr, lane_);
  }

  TQ_DEVICE void score(const u8* keys, const QueryFragments<d, kQueryTiles>* queries, u32 tables, u32 signs,
                       const float (&factors)[kQueryTiles][2], const float (&sign_factors)[kQueryTiles][2],
                       ScoreFragments<kQueryTiles>& scores) {
    u32 words[lane_words(d, kBits)];
    load_words<kStaged>(keys, lane_, words);
    multiply_codes<kKey, kStaged>(words, queries[0], lane_, tables, scores);
    scale_scores(load_scalars<kStaged>(keys + tile_scales_offset(kKey), lane_), factors, scores);
    if constexpr (kKey.prod) {
      ScoreFragments<kQueryTiles> sketched;
      u32 sign_words[lane_words(d, 1)];
      load_words<kStaged>(keys + tile_signs_offset(kKey), lane_, sign_words);
      multiply_signs<kKey, kStaged>(sign_words, queries[1], lane_, signs, sketched);
      add_scaled(load_scalars<kStaged>(keys + tile_residuals_offset(kKey), lane_), sign_factors, sketched,
                 scores);
    }
  }

  const AttendParams& p_;
  int sequence_, head_, lane_, first_, end_;
  u8* images_;
  float key_centroid_, value_centroid_;  // of the code that is the lane's index
  float alpha_;
};

}  // namespace tq::gpu
