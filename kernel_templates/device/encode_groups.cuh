#pragma once

#include "device/element.cuh"
#include "device/encode.cuh"

// Values to group codes (core/value_codec.h): zero = min and scale = (max - min) / (2^b - 1) of each group,
// both rounded to binary16 before code = round((v - zero) / scale).
namespace tq::gpu {

template <GroupCodecSpec kSpec>
struct GroupShared {
  static constexpr int d = kSpec.group.head_dim, kGroups = d / kSpec.group.group_size;
  alignas(16) u8 image[tile_bytes(kSpec.group)];
  alignas(16) u8 codes[kTileTokens * stage_stride(d)];
  u16 zeros[kGroups][kTileTokens];
  u16 scales[kGroups][kTileTokens];
};

// Blocks (tile, KV head, sequence).
template <GroupCodecSpec kSpec>
__global__ void __launch_bounds__(kEncodeThreads) encode_groups(const __grid_constant__ GroupParams p) {
  constexpr int d = kSpec.group.head_dim, kBits = kSpec.group.bits, kSize = kSpec.group.group_size;
  constexpr int kGroups = d / kSize, kWidth = kSize / 8;  // lanes a group, 8 coordinates each
  constexpr float kLargest = (1 << kBits) - 1;
  using Shared = GroupShared<kSpec>;
  static_assert(sizeof(Shared) <= group_shared_bytes(kSpec.group));
  Shared& shared = *reinterpret_cast<Shared*>(dynamic_shared);

  const int head = blockIdx.y, sequence = blockIdx.z;
  const TokenRange range = p.ranges == nullptr ? p.range : p.ranges[sequence];
  const int tile = range.first / kTileTokens + blockIdx.x;
  const int first = max(range.first - tile * kTileTokens, 0);
  const int end = min(range.first + range.count - tile * kTileTokens, kTileTokens);
  if (end <= first) return;

  const i64 base = sequence * p.x.sequence_stride + head * p.x.head_stride;
  constexpr int kPieces = kTileTokens * d / 8;  // of 8 coordinates
  static_assert(kPieces % kLanes == 0);         // the lanes of a warp stay together for the shuffles
#pragma unroll 2
  for (int piece = threadIdx.x; piece < kPieces; piece += kEncodeThreads) {
    const int row = piece / (d / 8), coordinate = piece % (d / 8) * 8;
    float x[8] = {};
    if (row >= first && row < end) {
      const i64 slot = source_slot(range, tile * kTileTokens + row - range.first);
      load_eight<kSpec.element>(p.x.data, base + slot * p.x.token_stride + coordinate, x);
      if (kSpec.element != Element::f16 && p.round_to_half != 0) {
#pragma unroll
        for (int i = 0; i < 8; ++i) x[i] = half_to_float(float_to_half_saturate(x[i]));
      }
    }
    float low = x[0], high = x[0];
#pragma unroll
    for (int i = 1; i < 8; ++i) {
      low = fminf(low, x[i]);
      high = fmaxf(high, x[i]);
    }
    low = lane_min<kWidth>(low);
    high = lane_max<kWidth>(high);
    const u16 zero_bits = float_to_half_saturate(low);
    const float zero = half_to_float(zero_bits);
    const u16 scale_bits = float_to_half_saturate((high - low) / kLargest);
    const float scale = half_to_float(scale_bits), reciprocal = 1.0f / scale;
    u32 codes[2] = {};
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      // The nearest float to the quotient, from the reciprocal and one step of Newton: what a division gives,
      // and with it core's codes, also where the quotient lies half-way between two.
      const float difference = x[i] - zero, guess = difference * reciprocal;
      const float exact = fmaf(fmaf(-guess, scale, difference), reciprocal, guess);
      const float clamped = scale == 0 ? 0.0f : fminf(fmaxf(exact, 0.0f), kLargest);
      codes[i / 4] |= static_cast<u32>(__float2int_rn(clamped)) << 8 * (i % 4);
    }
    u32* to = reinterpret_cast<u32*>(shared.codes + row * stage_stride(d) + coordinate);
    to[0] = codes[0];
    to[1] = codes[1];
    if (coordinate % kSize == 0) {
      shared.zeros[coordinate / kSize][row] = zero_bits;
      shared.scales[coordinate / kSize][row] = scale_bits;
    }
  }

  if constexpr (kSpec.layout == Layout::tiles) {
    u8* out = tile_at(p.tiles, sequence, head, tile);
    if (first > 0) copy_tile<tile_bytes(kSpec.group)>(out, shared.image);  // earlier tokens stay as they are
    __syncthreads();
    write_codes<Side::values, d, kBits>(shared.codes, reinterpret_cast<u32*>(shared.image), first, end);
    const auto in_order = [](int token) { return token; };
    for (int g = 0; g < kGroups; ++g) {
      u16* zeros = reinterpret_cast<u16*>(shared.image + tile_zeros_offset(kSpec.group)) + g * kTileTokens;
      u16* scales = reinterpret_cast<u16*>(shared.image + tile_scales_offset(kSpec.group)) + g * kTileTokens;
      write_scalars(shared.zeros[g], zeros, first, end, in_order);
      write_scalars(shared.scales[g], scales, first, end, in_order);
    }
    __syncthreads();
    copy_tile<tile_bytes(kSpec.group)>(shared.image, out);
  } else {
    __syncthreads();
    const i64 row = (static_cast<i64>(sequence) * p.heads + head) * p.canonical_rows + tile * kTileTokens;
    write_canonical<d, kBits>(shared.codes, p.canonical.codes + row * (d * kBits / 8), nullptr, end);
    for (int i = threadIdx.x; i < end * kGroups; i += kEncodeThreads) {
      p.canonical.zeros[row * kGroups + i] = shared.zeros[i % kGroups][i / kGroups];
      p.canonical.scales[row * kGroups + i] = shared.scales[i % kGroups][i / kGroups];
    }
  }
}

}  // namespace tq::gpu
