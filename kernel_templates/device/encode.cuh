#pragma once

#include "device/dense_rows.cuh"
#include "device/hadamard.cuh"
#include "device/quantiser.cuh"
#include "device/tile_words.cuh"
#include "shared/launch.h"

// Keys, and rotated values, to codes (arXiv:2504.19874, algorithms 1 and 2; core/key_codec.h): a block reads
// the vectors of one tile once and writes the tile, or the same rows in core's layout.
namespace tq::gpu {

template <EncodeSpec kSpec>
struct EncodeShared {
  static constexpr int d = kSpec.key.head_dim;
  // Vectors are kept where a matrix is applied to all of them, or a permutation to each.
  static constexpr bool kKeepsVectors = kSpec.key.prod || kSpec.key.rotation == Mixing::dense;
  float vectors[kKeepsVectors ? kTileTokens * d : 4];
  alignas(16) u8 image[tile_bytes(kSpec.key)];  // the tile as it will lie in memory
  typename Quantiser<kSpec.key.table_bits>::Storage table;
  alignas(16) u8 codes[kTileTokens * stage_stride(d)];  // a byte each; then signs
  float norms[kTileTokens];
  u16 scales[kTileTokens];
  u16 residual_norms[kSpec.key.prod ? kTileTokens : 1];
};

// 8 staged codes at a time to the canonical stream of one row.
template <int d, int kBits>
TQ_DEVICE void write_canonical(const u8* stage, u8* out, const u16* permutation, int rows) {
  for (int task = threadIdx.x; task < rows * (d / 8); task += blockDim.x) {
    const int row = task / (d / 8), first = task % (d / 8) * 8;
    unsigned long long word = 0;
#pragma unroll
    for (int k = 0; k < 8; ++k) {
      const int i = first + k, coordinate = permutation == nullptr ? i : permutation[i];
      word |= static_cast<unsigned long long>(stage[row * stage_stride(d) + coordinate]) << (k * kBits);
    }
    u8* to = out + (static_cast<i64>(row) * d + first) * kBits / 8;
#pragma unroll
    for (int k = 0; k < kBits; ++k) to[k] = static_cast<u8>(word >> 8 * k);
  }
}

// One tile: vectors to codes and scalars, staged in shared memory, then to where they belong.
template <EncodeSpec kSpec>
TQ_DEVICE void encode_tile(const EncodeParams& p, const TokenRange& range, int tile,
                           EncodeShared<kSpec>& shared, const Quantiser<kSpec.key.table_bits>& quantiser) {
  constexpr KeySpec kKey = kSpec.key;
  constexpr int d = kKey.head_dim, kBits = kKey.table_bits;
  constexpr bool kDenseRotation = kKey.rotation == Mixing::dense;
  constexpr bool kDenseSketch = kKey.sketch == Mixing::dense;
  using H = Hadamard<d>;
  const int head = blockIdx.y, sequence = blockIdx.z;
  const int first = max(range.first - tile * kTileTokens, 0);
  const int end = min(range.first + range.count - tile * kTileTokens, kTileTokens);
  const int lane = threadIdx.x % kLanes, warp = threadIdx.x / kLanes, l = lane % H::kWidth;
  constexpr int kWarpRows = kTileTokens / (kEncodeThreads / kLanes), kPasses = kWarpRows / H::kRows;
  static_assert(kPasses * H::kRows == kWarpRows);
  const i64 base = sequence * p.x.sequence_stride + head * p.x.head_stride;
  const auto row_of = [&](int pass) { return warp * kWarpRows + pass * H::kRows + lane / H::kWidth; };

  const auto load_row = [&](int row, typename H::Registers& x) {
#pragma unroll
    for (int e = 0; e < H::kElements; ++e) x[e] = 0;
    if (row >= first && row < end) {
      const i64 slot = source_slot(range, tile * kTileTokens + row - range.first);
      H::template load<kSpec.element>(p.x.data, base + slot * p.x.token_stride, l, x);
      if (kSpec.element != Element::f16 && p.round_to_half != 0) {
#pragma unroll
        for (int e = 0; e < H::kElements; ++e) x[e] = half_to_float(float_to_half_saturate(x[e]));
      }
    }
  };
  // ||x||, and what x must be multiplied by to have length 1 (0 for a zero vector).
  struct Length {
    float norm, inverse;
  };
  const auto measure = [&](typename H::Registers& x) {
    PowerOfTwo power{1, 1};
    if constexpr (kSpec.element != Element::f16) {  // squares of halves stay in float32's range
      float largest = 0;
#pragma unroll
      for (int e = 0; e < H::kElements; ++e) largest = fmaxf(largest, fabsf(x[e]));
      power = power_of_two(lane_max<H::kWidth>(largest));
#pragma unroll
      for (int e = 0; e < H::kElements; ++e) x[e] *= power.inverse;
    }
    float square[4] = {};
#pragma unroll
    for (int e = 0; e < H::kElements; ++e) square[e % 4] = fmaf(x[e], x[e], square[e % 4]);
    const float length = sqrtf(lane_sum<H::kWidth>((square[0] + square[1]) + (square[2] + square[3])));
    return Length{length * power.power, length == 0 ? 0.0f : 1.0f / length};
  };

  if constexpr (kDenseRotation) {
    for (int pass = 0; pass < kPasses; ++pass) {
      typename H::Registers x;
      const int row = row_of(pass);
      load_row(row, x);
      const Length length = measure(x);
#pragma unroll
      for (int e = 0; e < H::kElements; ++e)
        shared.vectors[row * d + H::coordinate(e, l)] = x[e] * length.inverse;
      if (l == 0) shared.norms[row] = length.norm;
    }
    dense_rows<d, kTileTokens, kEncodeThreads>(shared.vectors, p.rotation.matrix);
  }

#pragma unroll 1
  for (int pass = 0; pass < kPasses; ++pass) {
    typename H::Registers y;
    const int row = row_of(pass);
    float norm;
    if constexpr (kDenseRotation) {
      norm = shared.norms[row];
#pragma unroll
      for (int e = 0; e < H::kElements; ++e) y[e] = shared.vectors[row * d + H::coordinate(e, l)];
    } else {
      load_row(row, y);
      const Length length = measure(y);
      norm = length.norm;
#pragma unroll
      for (int e = 0; e < H::kElements; ++e) y[e] *= p.rotation.signs[H::coordinate(e, l)];
      H::template transform<false>(y, l);
      const float unit = length.inverse / sqrtf(static_cast<float>(d));
#pragma unroll
      for (int e = 0; e < H::kElements; ++e) y[e] *= unit;
    }
    float yc = 0, cc = 0, rr = 0;
    u8* stage = shared.codes + row * stage_stride(d);
    const auto quantise = [&](auto one_step) {
#pragma unroll
      for (int e = 0; e < H::kElements; e += 4) {
        u32 bytes = 0;
#pragma unroll
        for (int k = 0; k < 4; ++k) {
          const u32 code = quantiser.template index<(decltype(one_step)::value > 0)>(
              quantiser.coordinate(y[e + k], quantiser.grid_scale));
          const float c = quantiser.centroid(code);
          bytes |= code << 8 * k;
          if constexpr (!H::kContiguous) stage[H::coordinate(e + k, l)] = static_cast<u8>(code);
          if constexpr (kSpec.key.prod) {
            const float residual = y[e + k] - c;
            rr = fmaf(residual, residual, rr);
            shared.vectors[row * d + H::coordinate(e + k, l)] = residual;
          } else {
            yc = fmaf(y[e + k], c, yc);
            cc = fmaf(c, c, cc);
          }
        }
        if constexpr (H::kContiguous) *reinterpret_cast<u32*>(stage + H::coordinate(e, l)) = bytes;
      }
    };
    if (quantiser.steps == 1) {
      quantise(Index<1>{});
    } else {
      quantise(Index<0>{});
    }
    float gain = norm;
    if constexpr (!kKey.prod && kKey.scale == ScaleRule::nc)
      gain = norm * (1.0f / sqrtf(lane_sum<H::kWidth>(cc)));
    if constexpr (!kKey.prod && kKey.scale == ScaleRule::ls)
      gain = norm * (lane_sum<H::kWidth>(yc) / lane_sum<H::kWidth>(cc));
    if constexpr (kKey.prod) rr = lane_sum<H::kWidth>(rr);
    if (l == 0) {
      shared.scales[row] = float_to_half_saturate(gain);
      if constexpr (kKey.prod) shared.residual_norms[row] = float_to_half_saturate(norm * sqrtf(rr));
    }
  }

  u8* out = nullptr;
  const i64 out_row = (static_cast<i64>(sequence) * p.heads + head) * p.canonical_rows + tile * kTileTokens;
  if constexpr (kSpec.layout == Layout::tiles) {
    out = tile_at(p.tiles, sequence, head, tile);
    if (first > 0) copy_tile<tile_bytes(kKey)>(out, shared.image);  // earlier tokens stay as they are
  }
  __syncthreads();
  if constexpr (kSpec.layout == Layout::tiles) {
    write_codes<kSpec.side, d, kBits>(shared.codes, reinterpret_cast<u32*>(shared.image), first, end);
    write_scalars(shared.scales, reinterpret_cast<u16*>(shared.image + tile_scales_offset(kKey)), first, end,
                  scale_place);
  } else {
    const u16* permutation = kDenseRotation ? nullptr : p.rotation.permutation;
    write_canonical<d, kBits>(shared.codes, p.canonical.codes + out_row * (d * kBits / 8), permutation, end);
    for (int i = threadIdx.x; i < end; i += kEncodeThreads)
      p.canonical.scales[out_row + i] = shared.scales[i];
  }
  if constexpr (kKey.prod) {
    __syncthreads();  // the codes are out: their place takes the signs
    if constexpr (kDenseSketch) {
      dense_rows<d, kTileTokens, kEncodeThreads>(shared.vectors, p.sketch.matrix);
      for (int i = threadIdx.x; i < kTileTokens * d; i += kEncodeThreads)
        shared.codes[i / d * stage_stride(d) + i % d] = shared.vectors[i] > 0 ? 1 : 0;
    } else {
#pragma unroll 1
      for (int pass = 0; pass < kPasses; ++pass) {
        typename H::Registers z;
        const int row = row_of(pass);
#pragma unroll
        for (int e = 0; e < H::kElements; ++e) {
          const int i = H::coordinate(e, l), coordinate = kDenseRotation ? i : p.rotation.permutation[i];
          z[e] = shared.vectors[row * d + coordinate] * p.sketch.signs[i];
        }
        H::template transform<false>(z, l);
#pragma unroll
        for (int e = 0; e < H::kElements; ++e)
          shared.codes[row * stage_stride(d) + H::coordinate(e, l)] = z[e] > 0 ? 1 : 0;
      }
    }
    __syncthreads();
    if constexpr (kSpec.layout == Layout::tiles) {
      write_codes<Side::keys, d, 1>(
          shared.codes, reinterpret_cast<u32*>(shared.image + tile_signs_offset(kKey)), first, end);
      write_scalars(shared.residual_norms, reinterpret_cast<u16*>(shared.image + tile_residuals_offset(kKey)),
                    first, end, scale_place);
    } else {
      write_canonical<d, 1>(shared.codes, p.canonical.signs + out_row * (d / 8),
                            kDenseSketch ? nullptr : p.sketch.permutation, end);
      for (int i = threadIdx.x; i < end; i += kEncodeThreads)
        p.canonical.residual_norms[out_row + i] = shared.residual_norms[i];
    }
  }
  if constexpr (kSpec.layout == Layout::tiles) {
    __syncthreads();
    copy_tile<tile_bytes(kKey)>(shared.image, out);
  }
}

// Blocks that a multiprocessor should hold: where a lane's share of a vector is small, registers for five,
// which hide each other's barriers; otherwise as the compiler likes.
template <EncodeSpec kSpec>
inline constexpr int kEncodeResidency =
    Hadamard<kSpec.key.head_dim>::kElements <= 32 && !kSpec.key.prod && kSpec.key.rotation == Mixing::hadamard
        ? 5
        : 2;

// Blocks (any number of them share a range's tiles, KV head, sequence).
template <EncodeSpec kSpec>
__global__ void __launch_bounds__(kEncodeThreads, kEncodeResidency<kSpec>)
    encode(const __grid_constant__ EncodeParams p) {
  using Shared = EncodeShared<kSpec>;
  static_assert(sizeof(Shared) <= encode_shared_bytes(kSpec));
  Shared& shared = *reinterpret_cast<Shared*>(dynamic_shared);
  const TokenRange range = p.ranges == nullptr ? p.range : p.ranges[blockIdx.z];
  const int begin = range.first / kTileTokens,
            end = (range.first + range.count + kTileTokens - 1) / kTileTokens;
  if (range.count == 0 || begin + static_cast<int>(blockIdx.x) >= end) return;

  const QuantiserTable& from = p.tables[blockIdx.y * p.table_stride];
  Quantiser<kSpec.key.table_bits>::fill(shared.table, from);
  const Quantiser<kSpec.key.table_bits> quantiser(shared.table, from);
  __syncthreads();
  for (int tile = begin + blockIdx.x; tile < end; tile += gridDim.x) {
    encode_tile<kSpec>(p, range, tile, shared, quantiser);
    if constexpr (kSpec.layout == Layout::canonical) __syncthreads();  // staged codes are read to the end
  }
}

}  // namespace tq::gpu
