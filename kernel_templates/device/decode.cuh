#pragma once

#include "device/dense_rows.cuh"
#include "device/encode.cuh"

// Codes back to vectors (core/key_codec.h): tiles or core's layout, keys or rotated values.
namespace tq::gpu {

// Code i of a canonical row.
template <int kBits>
TQ_DEVICE u32 canonical_code(const u8* row, int i) {
  const int bit = i * kBits;
  u32 word = row[bit / 8];
  if (bit % 8 + kBits > 8) word |= static_cast<u32>(row[bit / 8 + 1]) << 8;
  return word >> bit % 8 & ((1u << kBits) - 1);
}

template <DecodeSpec kSpec>
__global__ void __launch_bounds__(kDecodeThreads) decode(const __grid_constant__ EncodeParams p) {
  constexpr KeySpec kKey = kSpec.key;
  constexpr int d = kKey.head_dim, kBits = kKey.table_bits;
  constexpr bool kDenseRotation = kKey.rotation == Mixing::dense;
  static_assert(kVectorRows * d * 4 * (kKey.prod ? 2 : 1) <= decode_shared_bytes(kKey));
  using H = Hadamard<d>;
  float* vectors = reinterpret_cast<float*>(dynamic_shared);
  float* residuals = vectors + kVectorRows * d;

  const int head = blockIdx.y, sequence = blockIdx.z;
  const TokenRange range = p.ranges == nullptr ? p.range : p.ranges[sequence];
  const int begin = blockIdx.x * kVectorRows, count = min(range.count - begin, kVectorRows);
  if (count <= 0) return;
  const float* centroids = p.tables[head * p.table_stride].centroids;
  const i64 out_row = (static_cast<i64>(sequence) * p.heads + head) * p.canonical_rows;
  const float alpha = kKey.prod ? p.alpha[head * p.table_stride] : 0.0f;
  const int lane = threadIdx.x % kLanes, l = lane % H::kWidth;
  constexpr int kBlockRows = kDecodeThreads / H::kWidth;
  // A token's tile and its place in it.
  const auto tile_of = [&](int row) {
    return tile_at(p.tiles, sequence, head, (range.first + begin + row) / kTileTokens);
  };
  const auto place_of = [&](int row) { return (range.first + begin + row) % kTileTokens; };

  for (int task = threadIdx.x; task < kVectorRows * d; task += kDecodeThreads) {
    const int row = task / d, i = task % d;
    float value = 0, sign = 0;
    int coordinate = i;
    if (row < count) {
      if constexpr (kSpec.layout == Layout::tiles) {
        const u8* tile = tile_of(row);
        const int token = place_of(row);
        const u16* scales = reinterpret_cast<const u16*>(tile + tile_scales_offset(kKey));
        value = centroids[read_code<kSpec.side, d, kBits>(reinterpret_cast<const u32*>(tile), token, i)] *
                half_to_float(scales[scale_place(token)]);
        if constexpr (kKey.prod) {
          const u16* norms = reinterpret_cast<const u16*>(tile + tile_residuals_offset(kKey));
          const u32 bit = read_code<Side::keys, d, 1>(
              reinterpret_cast<const u32*>(tile + tile_signs_offset(kKey)), token, i);
          sign = (bit != 0 ? alpha : -alpha) * half_to_float(norms[scale_place(token)]);
        }
      } else {
        const i64 from = out_row + begin + row;
        if constexpr (!kDenseRotation) coordinate = p.rotation.permutation[i];
        value = centroids[canonical_code<kBits>(p.canonical.codes + from * (d * kBits / 8), i)] *
                half_to_float(p.canonical.scales[from]);
        if constexpr (kKey.prod) {
          const u32 bit = canonical_code<1>(p.canonical.signs + from * (d / 8), i);
          sign = (bit != 0 ? alpha : -alpha) * half_to_float(p.canonical.residual_norms[from]);
        }
      }
    }
    vectors[row * d + coordinate] = value;
    if constexpr (kKey.prod) {
      const bool permuted = kSpec.layout == Layout::canonical && kKey.sketch == Mixing::hadamard;
      residuals[row * d + (permuted ? p.sketch.permutation[i] : i)] = sign;
    }
  }

  if constexpr (kKey.prod) {
    // Codes lie before the rotation's permutation, what the sketch gives back after it.
    const u16* order = kDenseRotation ? nullptr : p.rotation.permutation;
    if constexpr (kKey.sketch == Mixing::dense) {
      dense_rows<d, kVectorRows, kDecodeThreads>(residuals, p.sketch.matrix);
      for (int task = threadIdx.x; task < kVectorRows * d; task += kDecodeThreads)
        vectors[task] += residuals[task];
      static_cast<void>(order);
    } else {
      __syncthreads();
      for (int start = 0; start < kVectorRows; start += kBlockRows) {
        const int row = start + threadIdx.x / H::kWidth;
        typename H::Registers x = {};
#pragma unroll
        for (int e = 0; e < H::kElements; ++e) {
          if (row < kVectorRows) x[e] = residuals[row * d + H::coordinate(e, l)];
        }
        H::template transform<true>(x, l);
#pragma unroll
        for (int e = 0; e < H::kElements; ++e) {
          const int i = H::coordinate(e, l);
          if (row < kVectorRows)
            vectors[row * d + (order == nullptr ? i : order[i])] += x[e] * p.sketch.signs[i];
        }
      }
    }
  }

  const i64 base = sequence * p.x.sequence_stride + head * p.x.head_stride;
  const auto out_slot = [&](int row) { return base + source_slot(range, begin + row) * p.x.token_stride; };
  if constexpr (kDenseRotation) {
    dense_rows<d, kVectorRows, kDecodeThreads>(vectors, p.rotation.matrix);
    for (int task = threadIdx.x; task < count * d; task += kDecodeThreads)
      store_element<kSpec.element>(p.x.data, out_slot(task / d) + task % d, vectors[task]);
  } else {
    __syncthreads();
    const float gain = 1.0f / sqrtf(static_cast<float>(d));
    for (int start = 0; start < kVectorRows; start += kBlockRows) {
      const int row = start + threadIdx.x / H::kWidth;
      typename H::Registers x = {};
#pragma unroll
      for (int e = 0; e < H::kElements; ++e) {
        if (row < kVectorRows) x[e] = vectors[row * d + H::coordinate(e, l)];
      }
      H::template transform<true>(x, l);
#pragma unroll
      for (int e = 0; e < H::kElements; ++e) x[e] *= gain * p.rotation.signs[H::coordinate(e, l)];
      if (row < count) H::template store<kSpec.element>(p.x.data, out_slot(row), l, x);
    }
  }
}

// Group values.
template <GroupCodecSpec kSpec>
__global__ void __launch_bounds__(kDecodeThreads) decode_groups(const __grid_constant__ GroupParams p) {
  constexpr int d = kSpec.group.head_dim, kBits = kSpec.group.bits, kSize = kSpec.group.group_size;
  constexpr int kGroups = d / kSize;
  const int head = blockIdx.y, sequence = blockIdx.z;
  const TokenRange range = p.ranges == nullptr ? p.range : p.ranges[sequence];
  const int begin = blockIdx.x * kVectorRows, count = min(range.count - begin, kVectorRows);
  const i64 base = sequence * p.x.sequence_stride + head * p.x.head_stride;
  for (int task = threadIdx.x; task < count * d; task += kDecodeThreads) {
    const int row = task / d, i = task % d, g = i / kSize;
    float zero, scale;
    u32 code;
    if constexpr (kSpec.layout == Layout::tiles) {
      const int token = (range.first + begin + row) % kTileTokens;
      const u8* tile = tile_at(p.tiles, sequence, head, (range.first + begin + row) / kTileTokens);
      zero = half_to_float(
          reinterpret_cast<const u16*>(tile + tile_zeros_offset(kSpec.group))[g * kTileTokens + token]);
      scale = half_to_float(
          reinterpret_cast<const u16*>(tile + tile_scales_offset(kSpec.group))[g * kTileTokens + token]);
      code = read_code<Side::values, d, kBits>(reinterpret_cast<const u32*>(tile), token, i);
    } else {
      const i64 from = (static_cast<i64>(sequence) * p.heads + head) * p.canonical_rows + begin + row;
      zero = half_to_float(p.canonical.zeros[from * kGroups + g]);
      scale = half_to_float(p.canonical.scales[from * kGroups + g]);
      code = canonical_code<kBits>(p.canonical.codes + from * (d * kBits / 8), i);
    }
    store_element<kSpec.element>(p.x.data, base + source_slot(range, begin + row) * p.x.token_stride + i,
                                 fmaf(static_cast<float>(code), scale, zero));
  }
}

}  // namespace tq::gpu
