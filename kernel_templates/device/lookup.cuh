#pragma once

#include "device/tile_words.cuh"
#include "shared/launch.h"

// Codes to fragments of binary16 centroids by tables in shared memory. A byte of a lane's words, put into
// byte 1 of an address, is a row of 256 bytes:
//
//   row k, 256 bytes:  | keys: centroids of all codes in byte k, again and again | values: the same |
//
// One read gives every centroid of the byte: 2 (3 and 4 bits), 4 (2 bits) or 8 (1 bit), one to four registers
// of the fragment. The copies in a row are as many as lanes are served at once, so reads meet in no bank.
// Where the tables begin at a multiple of 64 KB (kAligned), one instruction makes a byte an address.
namespace tq::gpu {

template <int kBits, Side kSide, bool kAligned>
struct Lookup {
  static_assert(kBits >= 1 && kBits <= 4);
  static constexpr int kRegisters = kBits == 1 ? 4 : kBits == 2 ? 2 : 1;  // a read
  static constexpr int kCopies = kLanes / kRegisters;
  static constexpr int kHalf = kSide == Side::keys ? 0 : kLookupRow / 2;

  // value(code): the centroid. All threads of the block, whole warps at a time, a row a thread; the caller
  // synchronises.
  template <typename Value>
  TQ_DEVICE static void fill(char* tables, const Value& value) {
    constexpr int kMask = (1 << kBits) - 1;
#pragma unroll 1
    for (int k = threadIdx.x; k < kLookupEntries; k += static_cast<int>(blockDim.x)) {
      Vector4 v;
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int codes = k >> i % kRegisters * 2 * kBits;
        v.x[i] = i < kRegisters ? pack_half2(value(codes & kMask), value(codes >> kBits & kMask))
                                : v.x[i % kRegisters];
      }
      // Neighbouring rows begin in the same bank, so each thread begins with another piece of its row.
#pragma unroll
      for (int piece = 0; piece < 8; ++piece)
        *reinterpret_cast<Vector4*>(tables + kHalf + k * kLookupRow + (piece + k) % 8 * 16) = v;
    }
  }

  // Shared address of row 0 of a lane's copy.
  TQ_DEVICE static u32 lane_address(const char* tables) {
    return shared_address(tables) + kHalf + threadIdx.x % kLanes % kCopies * 4 * kRegisters;
  }

  // The word of a lane and block whose bytes hold sub-tile s, and the first of them.
  template <int s>
  TQ_DEVICE static u32 word_of(const u32* words) {
    if constexpr (kBits == 3 && s == 3) {
      const u32 low = words[0] >> 6 & 0x03030303u | words[1] >> 4 & 0x0c0c0c0cu;
      return low | words[2] >> 2 & 0x30303030u;
    }
    return words[kBits == 1 ? 0 : kBits == 2 ? s / 2 : s];
  }
  template <int s>
  static constexpr int kFirstByte = kBits == 1   ? s
                                    : kBits == 2 ? 2 * (s % 2)
                                                 : 0;

  // Fragment A of sub-tile s from the words of one block (shared/tile_layout.h).
  template <int s>
  TQ_DEVICE static void fragment(const u32* words, u32 lane_address, u32 (&a)[4]) {
    const u32 word = word_of<s>(words);
    static_for<4 / kRegisters>([&](auto n) {
      constexpr u32 kByte = kFirstByte<s> + decltype(n)::value;
      const u32 at = kAligned ? permute_bytes(word, lane_address, 0x7604u | kByte << 4)
                              : permute_bytes(word, 0, 0x4404u | kByte << 4) + lane_address;
      load_shared<kRegisters>(at, a + kRegisters * decltype(n)::value);
    });
  }
};

// What group values' codes are counted from: the middle of their range, or next to it, as binary16 has it.
TQ_DEVICE constexpr float group_middle(int bits) { return bits == 8 ? 128.0f : 0.5f * ((1 << bits) - 1); }

// Codes of 8 bits need no table: a byte under 0x64 is the half 1024 + code. Counted from group_middle.
template <Side kSide, bool kAligned>
struct Lookup<8, kSide, kAligned> {
  template <typename Value>
  TQ_DEVICE static void fill(char*, const Value&) {}
  TQ_DEVICE static u32 lane_address(const char*) { return 0; }
  template <int s>
  TQ_DEVICE static void fragment(const u32* words, u32, u32 (&a)[4]) {
    constexpr u32 kThousands = 0x64006400u, kMiddle = 0x64806480u;  // 1024, and 1024 + group_middle
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const u32 word = words[2 * s + i];
      a[2 * i] = subtract_half2(permute_bytes(word, kThousands, 0x5150u), kMiddle);
      a[2 * i + 1] = subtract_half2(permute_bytes(word, kThousands, 0x5352u), kMiddle);
    }
  }
};

// Sign bits to +-1, four at a time: 16 rows of 128 bytes behind the other tables.
template <bool kAligned>
struct SignLookup {
  TQ_DEVICE static void fill(char* tables) {
    for (u32 task = threadIdx.x; task < kSignLookupBytes / 8; task += blockDim.x) {
      const u32 k = task / 16;
      Vector2 v;
#pragma unroll
      for (int i = 0; i < 2; ++i)
        v.x[i] = 0xbc00bc00u ^ (k >> 2 * i & 1u) << 15 ^ (k >> (2 * i + 1) & 1u) << 31;
      *reinterpret_cast<Vector2*>(tables + kLookupBytes + task * 8) = v;
    }
  }
  TQ_DEVICE static u32 lane_address(const char* tables) {
    return shared_address(tables) + kLookupBytes + threadIdx.x % 16 * 8;
  }

  // Fragment A of sub-tile s from a block's word of codes of 1 bit.
  template <int s>
  TQ_DEVICE static void fragment(u32 word, u32 lane_address, u32 (&a)[4]) {
    static_for<2>([&](auto i) {
      constexpr int kShift = 4 * (2 * s + decltype(i)::value) - 7;
      const u32 row =
          (kShift < 0 ? word << (kShift < 0 ? -kShift : 0) : word >> (kShift < 0 ? 0 : kShift)) & 0x780u;
      load_shared<2>(kAligned ? row | lane_address : row + lane_address, a + 2 * decltype(i)::value);
    });
  }
};

// A lane's words of a plane in global or (a staged tile's) in shared memory.
template <bool kStaged, int kWords>
TQ_DEVICE void load_words(const u8* plane, int lane, u32 (&words)[kWords]) {
#pragma unroll
  for (int i = 0; i < kWords / 4; ++i) {
    const Vector4 v = load16<kStaged>(plane + (i * kLanes + lane) * 16);
#pragma unroll
    for (int k = 0; k < 4; ++k) words[4 * i + k] = v.x[k];
  }
#pragma unroll
  for (int i = kWords / 4 * 4; i < kWords; ++i)
    words[i] = load4<kStaged>(plane + word_index(kWords, lane, i) * 4);
}

}  // namespace tq::gpu
