#pragma once

#include "device/tile_words.cuh"
#include "shared/launch.h"

// Codes to fragments of binary16 centroids by tables in shared memory: one read gives the centroids of two codes
// (3 and 4 bits) or four (1 and 2 bits). The table stands there once for every lane, so reads meet in no bank:
//
//   row k, 256 bytes:  | keys: 32 x (c[k0], c[k1]), or 16 x (c[k0] .. c[k3]) | values: the same |
//
// with k0, k1, .. the codes that make up k. A byte of codes put into byte 1 of an address is that row.
namespace tq::gpu {

template <int kBits, Side kSide>
struct Lookup {
  static constexpr bool kQuads = kBits <= 2;
  static constexpr int kFieldBits = kBits * (kQuads ? 4 : 2);
  static constexpr int kHalf = kSide == Side::keys ? 0 : kLookupRow / 2;
  static_assert(kBits >= 1 && kBits <= 4);

  // `centroid(i)` is the value of code i. All threads of the block; the caller synchronises.
  template <typename Centroid>
  TQ_DEVICE static void fill(const Centroid& centroid) {
    constexpr u32 kMask = (1u << kBits) - 1;
    char* rows = reinterpret_cast<char*>(dynamic_shared) + kHalf;
    for (u32 task = threadIdx.x; task < lookup_entries(kBits) * 8u; task += blockDim.x) {
      const u32 k = task / 8;
      Vector4 v;
      v.x[0] = pack_half2(centroid(k & kMask), centroid(k >> kBits & kMask));
      if constexpr (kQuads) {
        v.x[1] = pack_half2(centroid(k >> 2 * kBits & kMask), centroid(k >> 3 * kBits & kMask));
      } else {
        v.x[1] = v.x[0];
      }
      v.x[2] = v.x[0];
      v.x[3] = v.x[1];
      *reinterpret_cast<Vector4*>(rows + k * kLookupRow + task % 8 * 16) = v;
    }
  }

  // What distinguishes a lane's copy.
  TQ_DEVICE static u32 lane_offset() {
    const u32 lane = threadIdx.x % kLanes;
    return kQuads ? lane % 16 * 8 : lane * 4;
  }

  // Byte offset of the row of the field at `bit` of a lane's words of one block, lane offset included.
  template <int kBit>
  TQ_DEVICE static u32 row(const u32* words, u32 offset) {
    constexpr int kWord = kBit / 32, kShift = kBit % 32;
    if constexpr (kFieldBits == 8) {
      return permute_bytes(words[kWord], offset, 0x7704u | (kShift / 8) << 4);
    } else {
      constexpr u32 kMask = ((1u << kFieldBits) - 1) << 8;
      u32 shifted;
      if constexpr (kShift + kFieldBits > 32) {
        shifted = __funnelshift_r(words[kWord], words[kWord + 1], kShift - 8);
      } else if constexpr (kShift >= 8) {
        shifted = words[kWord] >> (kShift - 8);
      } else {
        shifted = words[kWord] << (8 - kShift);
      }
      return (shifted & kMask) | offset;
    }
  }

  // Fragment A of sub-tile s from the words of one block (shared/tile_layout.h).
  template <int s>
  TQ_DEVICE static void fragment(const u32* words, u32 offset, u32 (&a)[4]) {
    const char* rows = reinterpret_cast<const char*>(dynamic_shared) + kHalf;
    static_for<2>([&](auto h) {
      constexpr int kBit = (2 * s + decltype(h)::value) * 4 * kBits;
      if constexpr (kQuads) {
        const Vector2 v = *reinterpret_cast<const Vector2*>(rows + row<kBit>(words, offset));
        a[decltype(h)::value] = v.x[0];
        a[2 + decltype(h)::value] = v.x[1];
      } else {
        a[decltype(h)::value] = *reinterpret_cast<const u32*>(rows + row<kBit>(words, offset));
        a[2 + decltype(h)::value] = *reinterpret_cast<const u32*>(rows + row<kBit + 2 * kBits>(words, offset));
      }
    });
  }
};

// Codes of 8 bits need no table: a byte under 0x64 is the half 1024 + code.
template <Side kSide>
struct Lookup<8, kSide> {
  template <typename Centroid>
  TQ_DEVICE static void fill(const Centroid&) {}
  TQ_DEVICE static u32 lane_offset() { return 0; }
  template <int s>
  TQ_DEVICE static void fragment(const u32* words, u32, u32 (&a)[4]) {
    constexpr u32 kThousands = 0x64006400u;
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const u32 word = words[2 * s + h];
      a[h] = subtract_half2(permute_bytes(word, kThousands, 0x5150u), kThousands);
      a[2 + h] = subtract_half2(permute_bytes(word, kThousands, 0x5352u), kThousands);
    }
  }
};

// Fragment of +-1 from the sign word of one block.
template <int s>
TQ_DEVICE void sign_fragment(u32 word, u32 (&a)[4]) {
  static_for<4>([&](auto i) {
    constexpr int kPair = 2 * (2 * s + decltype(i)::value % 2) + decltype(i)::value / 2;
    a[decltype(i)::value] = ~(word << (15 - kPair)) & 0x80008000u | 0x3c003c00u;
  });
}

// A lane's words of a plane.
template <int kWords>
TQ_DEVICE void load_words(const u8* plane, int lane, u32 (&words)[kWords]) {
#pragma unroll
  for (int i = 0; i < kWords / 4; ++i) {
    const Vector4 v = load_stream16(plane + (i * kLanes + lane) * 16);
#pragma unroll
    for (int k = 0; k < 4; ++k) words[4 * i + k] = v.x[k];
  }
#pragma unroll
  for (int i = kWords / 4 * 4; i < kWords; ++i) words[i] = load_stream4(plane + word_index(kWords, lane, i) * 4);
}

}  // namespace tq::gpu
