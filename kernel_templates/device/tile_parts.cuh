#pragma once

#include "device/tile_words.cuh"

// Codes of a tile as device/tensor_hadamard.cuh leaves them in lanes, to the tile's words
// (shared/tile_layout.h).
//
// A warp's pass takes 8 of the 64 tokens, such that the two that a lane holds and the two coordinates that
// differ in bit 0 make up a unit: the codes of pairs 2 u and 2 u + 1, 16 bits at 4 bits a code.
//
//   pass 2 s + q, column n = 2 c + e   keys     token 16 s + 4 c + 2 e + q   units 2 s, 2 s + 1, row 2 c + q
//                                      values   token 16 s + 4 c + 2 q + e   unit 2 s + q, column c
//
// Units go to the tile's lanes through a plane in shared memory, word by word: [block][word][lane]. 3 bits
// take up 4 words there, the six bits of a pair in a byte of their own, and become 3 on the way out.
namespace tq::gpu {

// Token of a pass's column.
TQ_SHARED int pass_token(Side side, int pass, int n) {
  const int q = pass % 2, e = n % 2;
  return 16 * (pass / 2) + 4 * (n / 2) + (side == Side::keys ? 2 * e + q : 2 * q + e);
}

template <Side kSide, int d, int kBits>
struct TileParts {
  static_assert(kBits >= 2 && kBits <= 4);
  static constexpr int kPlaneWords = plane_words(kBits);
  static constexpr int kUnitBytes = kPlaneWords / 2, kPairBits = 2 * kPlaneWords;
  static constexpr int kVectors = lane_words(d, kBits) / 4;  // 16 bytes each, a lane
  using Codes = u32[2][4];  // of two products; (r, 2c), (r, 2c + 1), then the same of r + 8

  // A lane's place in the plane, of block r / 4.
  TQ_DEVICE static u8* place(u32* plane, int pass, int lane) {
    const int r = lane / 4, c = lane % 4, s = pass / 2, q = pass % 2;
    const int unit = kSide == Side::keys ? 2 * s : 2 * s + q;
    const int to = kSide == Side::keys ? 4 * (2 * c + q) + r % 4 : 4 * (2 * (r % 4)) + c;
    const int byte = unit * kUnitBytes;
    return reinterpret_cast<u8*>(plane + (r / 4 * kPlaneWords + byte / 4) * kLanes + to) + byte % 4;
  }

  // Codes of products 2 g and 2 g + 1: coordinates 32 g + 4 r + 0 .. 3.
  TQ_DEVICE static void put(u8* place, int g, const Codes& codes) {
    u8* to = place + g * (2 * kPlaneWords * kLanes * 4);
    const u32 low = unit(codes[0]), high = unit(codes[1]);
    if constexpr (kSide == Side::keys) {
      store<2 * kUnitBytes>(to, low + (high << 8 * kUnitBytes));
    } else {
      store<kUnitBytes>(to, low);
      store<kUnitBytes>(to + 16, high);  // 4 lanes on
    }
  }

  // A whole tile's words. All threads of the block.
  TQ_DEVICE static void write(const u32* plane, u8* tile) {
    for (int vector = threadIdx.x / kLanes; vector < kVectors; vector += blockDim.x / kLanes) {
      const int lane = threadIdx.x % kLanes;
      reinterpret_cast<Vector4*>(tile)[vector * kLanes + lane] = words(plane + lane, vector);
    }
  }

  // Those of tokens first .. end - 1: earlier ones stay as they are, later ones become 0. All threads of the
  // block.
  TQ_DEVICE static void write_part(const u32* plane, u8* tile, int first, int end) {
    for (int task = threadIdx.x; task < d / kBlockCoordinates * kLanes; task += blockDim.x) {
      const int block = task / kLanes, lane = task % kLanes;
      const u32* from = plane + block * kPlaneWords * kLanes + lane;
      const auto mask = [&](u32(&words)[kBits], const auto& holds) {
        u32 units[8];
#pragma unroll
        for (int u = 0; u < 8; ++u) units[u] = unit_mask<kSide>(lane, u, holds);
        join_units<kBits>(units, words);
      };
      u32 keep[kBits], live[kBits];
      mask(keep, [&](int token) { return token < first; });
      mask(live, [&](int token) { return token >= first && token < end; });
#pragma unroll
      for (int w = 0; w < kBits; ++w) {
        u32& to = reinterpret_cast<u32*>(tile)[word_index(lane_words(d, kBits), lane, block * kBits + w)];
        u32 word = kBits == 3 ? joined(from, w) : from[w * kLanes];
        word &= live[w];
        if (first > 0) word |= to & keep[w];
        to = word;
      }
    }
  }

 private:
  // Word w of a block of 3 bits.
  TQ_DEVICE static u32 joined(const u32* block, int w) {
    return block[w * kLanes] | (block[3 * kLanes] << (6 - 2 * w) & 0xc0c0c0c0u);
  }
  // Sixteen bytes of a lane's words, those of 3 bits a third of the twelve words of four blocks.
  TQ_DEVICE static Vector4 words(const u32* plane, int vector) {
    if constexpr (kBits == 3) {
      const u32* blocks = plane + vector / 3 * (16 * kLanes);
      const int third = vector % 3;
      return third == 0 ? third_of<0>(blocks) : third == 1 ? third_of<1>(blocks) : third_of<2>(blocks);
    } else {
      const u32* from = plane + 4 * vector * kLanes;
      return {from[0], from[kLanes], from[2 * kLanes], from[3 * kLanes]};
    }
  }
  template <int kThird>
  TQ_DEVICE static Vector4 third_of(const u32* blocks) {
    Vector4 v;
#pragma unroll
    for (int k = 0; k < 4; ++k)
      v.x[k] = joined(blocks + (4 * kThird + k) / 3 * (4 * kLanes), (4 * kThird + k) % 3);
    return v;
  }
  TQ_DEVICE static u32 unit(const u32 (&codes)[4]) {
    // A pair's codes are neighbouring coordinates of keys, neighbouring tokens of values.
    constexpr int kOther = kSide == Side::keys ? 2 : 1, kNext = 3 - kOther;
    return (codes[0] + (codes[kOther] << kBits)) + ((codes[kNext] + (codes[3] << kBits)) << kPairBits);
  }
  template <int kBytes>
  TQ_DEVICE static void store(u8* to, u32 value) {
    if constexpr (kBytes == 4) *reinterpret_cast<u32*>(to) = value;
    if constexpr (kBytes == 2) *reinterpret_cast<u16*>(to) = static_cast<u16>(value);
    if constexpr (kBytes == 1) *to = static_cast<u8>(value);
  }
};

}  // namespace tq::gpu
