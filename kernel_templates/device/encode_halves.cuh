#pragma once

#include "device/quantiser.cuh"
#include "device/tensor_hadamard.cuh"
#include "device/tile_parts.cuh"
#include "shared/launch.h"

// Keys, and rotated values, from binary16 to tiles (as device/encode.cuh, which takes all else). A block
// takes a tile, each of its eight warps a pass of 8 tokens: rotated on the tensor cores, quantised in
// registers, put together in shared memory.
//
//   load tile t+1 ->            (in flight)              ->
//   rotate tile t | quantise | into plane t%2 | barrier | plane t%2 to the tile |
//
// A plane is written again two tiles later, with a barrier in between.
namespace tq::gpu {

template <EncodeSpec kSpec>
struct EncodeHalvesShared {
  static constexpr int kBits = kSpec.key.table_bits;
  static constexpr bool kSums = kSpec.key.scale == ScaleRule::nc;
  alignas(16) u32 planes[2][plane_bytes(kSpec.key.head_dim, kBits) / 4];
  alignas(16) u32 scales[2][kTileTokens / 2];  // halves, in the tile's order
  typename TensorHadamard<kSpec.key.head_dim>::Flips flips;
  typename Quantiser<kBits>::Storage table;
  float square_sums[kSums ? 1 << 2 * kBits : 1][kLanes];
};

// 8 coordinates as they lie in memory, and as halves.
template <Element kElement>
struct Loaded {
  Vector4 v[element_bytes(kElement) / 2];

  TQ_DEVICE void load(const void* base, i64 index) {
    const u8* from = static_cast<const u8*>(base) + index * element_bytes(kElement);
    v[0] = load_stream16(from);
    if constexpr (kElement == Element::f32) v[1] = load_stream16(from + 16);
  }
  TQ_DEVICE u32 word(int i) const {
    if constexpr (kElement == Element::f16) return v[0].x[i];
    if constexpr (kElement == Element::bf16)
      return pack_half2_saturate(__uint_as_float(v[0].x[i] << 16), __uint_as_float(v[0].x[i] & 0xffff0000u));
    if constexpr (kElement == Element::f32)
      return pack_half2_saturate(__uint_as_float(v[i / 2].x[2 * (i % 2)]),
                                 __uint_as_float(v[i / 2].x[2 * (i % 2) + 1]));
    return 0;
  }
};

// Sums over the lanes of a column's rows: even r get column 2c's, odd r column 2c + 1's.
TQ_DEVICE float column_sum(const float (&sums)[2], bool odd) {
  float sum = (odd ? sums[1] : sums[0]) + __shfl_xor_sync(kFullWarp, odd ? sums[0] : sums[1], 4);
  sum += __shfl_xor_sync(kFullWarp, sum, 8);
  return sum + __shfl_xor_sync(kFullWarp, sum, 16);
}

// Blocks that a multiprocessor should hold, by the registers that a vector's share takes.
TQ_SHARED int encode_halves_residency(const EncodeSpec& spec) {
  const int halves = spec.key.head_dim <= 64 ? 4 : spec.key.head_dim <= 128 ? 3 : 2;
  return spec.element == Element::f32 ? halves - 1 : halves;
}

// Blocks (any number of them share a range's tiles, KV head, sequence).
template <EncodeSpec kSpec>
__global__ void __launch_bounds__(kEncodeThreads, encode_halves_residency(kSpec))
    encode_halves(const __grid_constant__ EncodeParams p) {
  constexpr KeySpec kKey = kSpec.key;
  constexpr int d = kKey.head_dim, kBits = kKey.table_bits;
  static_assert(encodes_halves(kSpec) && kEncodeThreads == 8 * kLanes);
  using Rotation = TensorHadamard<d>;
  using Parts = TileParts<kSpec.side, d, kBits>;
  using Shared = EncodeHalvesShared<kSpec>;
  static_assert(sizeof(Shared) <= encode_halves_shared_bytes(kSpec));
  Shared& shared = *reinterpret_cast<Shared*>(dynamic_shared);
  const int head = blockIdx.y, sequence = blockIdx.z, step = gridDim.x;
  const TokenRange range = p.ranges == nullptr ? p.range : p.ranges[sequence];
  const int begin = range.first / kTileTokens + blockIdx.x,
            last = (range.first + range.count - 1) / kTileTokens;
  if (range.count == 0 || begin > last) return;

  const int lane = threadIdx.x % kLanes, pass = warp_index(), r = lane / 4, c = lane % 4;
  const u8* x_lane =
      static_cast<const u8*>(p.x.data) +
      (sequence * p.x.sequence_stride + head * p.x.head_stride + loaded_coordinate(c, 0, 0, 0)) *
          element_bytes(kSpec.element);
  Loaded<kSpec.element> loaded[Rotation::kLoads];
  const auto load = [&](int tile) {
    // Tokens outside the range are not written: any will do in their place.
    const int i = tile * kTileTokens + pass_token(kSpec.side, pass, r) - range.first;
    const i64 at = source_slot(range, min(max(i, 0), range.count - 1)) * p.x.token_stride;
#pragma unroll
    for (int k = 0; k < Rotation::kLoads; ++k) loaded[k].load(x_lane, at + loaded_coordinate(0, k, 0, 0));
  };

  load(begin);
  const QuantiserTable& from = p.tables[head * p.table_stride];
  Quantiser<kBits>::fill(shared.table, from);
  const Quantiser<kBits> quantiser(shared.table, from);
  if constexpr (Shared::kSums) SquareSums<kBits>::fill(shared.square_sums, from);
  Rotation::fill(shared.flips, p.rotation.signs);
  const Rotation rotation;
  const float root = 1.0f / sqrtf(static_cast<float>(d));
  __syncthreads();

  int turn = 0;
#pragma unroll 1
  for (int tile = begin; tile <= last; tile += step, turn ^= 1) {
    typename Rotation::Words x;
#pragma unroll
    for (int k = 0; k < Rotation::kLoads; ++k) {
      const Vector4 flips = shared.flips[k][c];
#pragma unroll
      for (int i = 0; i < 4; ++i) x[word_place(k, i)] = loaded[k].word(i) ^ flips.x[i];
    }
    float square[2];
    Rotation::squares(x, square);
    typename Rotation::Result y;
    rotation.transform(x, y);
    if (tile + step <= last) load(tile + step);
    u8* out = tile_at(p.tiles, sequence, head, tile);  // early: a block table is in memory, too

    float unit[2], to_grid[2];
#pragma unroll
    for (int e = 0; e < 2; ++e) {
      // Squares of halves are 0 or 2^-48 at least: all coordinates of a zero vector stay 0.
      unit[e] = rsqrt_approx(fmaxf(square[e], 1e-30f)) * root;
      to_grid[e] = unit[e] * quantiser.grid_scale;
    }
    u32* plane = shared.planes[turn];
    u8* place = Parts::place(plane, pass, lane);
    float yc[2] = {}, cc[2] = {};
    const auto quantise = [&](auto one_step) {
#pragma unroll
      for (int g = 0; g < Rotation::kProducts / 2; ++g) {
        typename Parts::Codes codes;
#pragma unroll
        for (int i = 0; i < 8; ++i) {
          const float value = y[2 * g + i / 4][i % 4];
          const u32 code = quantiser.template index<(decltype(one_step)::value > 0)>(
              quantiser.coordinate(value, to_grid[i % 2]));
          codes[i / 4][i % 4] = code;
          if constexpr (kSpec.key.scale == ScaleRule::ls) {
            const float centroid = quantiser.centroid(code);
            yc[i % 2] = fmaf(value, centroid, yc[i % 2]);
            cc[i % 2] = fmaf(centroid, centroid, cc[i % 2]);
          }
        }
        if constexpr (kSpec.key.scale == ScaleRule::nc) {
          const SquareSums<kBits> sums(shared.square_sums);
#pragma unroll
          for (int i = 0; i < 4; ++i) cc[i % 2] += sums.of(codes[i / 2][i % 2], codes[i / 2][i % 2 + 2]);
        }
        Parts::put(place, g, codes);
      }
    };
    if (quantiser.steps == 1) {
      quantise(Index<1>{});
    } else {
      quantise(Index<0>{});
    }

    const bool odd = r % 2 != 0;
    float gain = sqrt_approx(odd ? square[1] : square[0]);
    if constexpr (kSpec.key.scale == ScaleRule::nc) gain *= rsqrt_approx(column_sum(cc, odd));
    if constexpr (kSpec.key.scale == ScaleRule::ls)
      gain *= (odd ? unit[1] : unit[0]) * (column_sum(yc, odd) / column_sum(cc, odd));
    if (r < 2) {
      const int token = pass_token(kSpec.side, pass, 2 * c + r);
      reinterpret_cast<u16*>(shared.scales[turn])[scale_place(token)] = float_to_half_saturate(gain);
    }
    __syncthreads();

    const int first = max(range.first - tile * kTileTokens, 0);
    const int end = min(range.first + range.count - tile * kTileTokens, kTileTokens);
    if (first == 0 && end == kTileTokens) {
      Parts::write(plane, out);
      if (pass == 7) reinterpret_cast<u32*>(out + tile_scales_offset(kKey))[lane] = shared.scales[turn][lane];
    } else {
      Parts::write_part(plane, out, first, end);
      const u16* scales = reinterpret_cast<const u16*>(shared.scales[turn]);
      u16* to = reinterpret_cast<u16*>(out + tile_scales_offset(kKey));
      const int token = threadIdx.x;
      if (token >= first && token < kTileTokens)
        to[scale_place(token)] = token < end ? scales[scale_place(token)] : 0;
    }
  }
}

}  // namespace tq::gpu
