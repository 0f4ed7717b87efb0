#pragma once

#include "device/element.cuh"
#include "device/paley.cuh"
#include "device/tensor_hadamard.cuh"
#include "shared/launch.h"
#include "shared/params.h"

// out = gain H x for orders d = m 2^k with one of Paley's factors m, of binary16 or bfloat16: 16 rows of a
// warp at a time are multiplied by all of H on the tensor cores. Products with +-1 are exact and sums are
// float32. The d additions an element that this takes are cheaper there than the few that butterflies and
// Paley's factor need outside.
namespace tq::gpu {

// H as the B of products: 8 x 8 blocks of it, an operand register each. 4 divides 2^k, so that every aligned
// 4 x 4 block of H is +H4 or -H4, and a block of 8 x 8 is one of 16 patterns of four signs: few registers
// hold all of H.
template <WhtSpec kSpec>
struct WholeHadamard {
  static constexpr int kPaley = paley_order(kSpec.order), kSylvester = kSpec.order / kPaley;
  static_assert(kSylvester % 4 == 0 && kSylvester <= 16);

  u32 blocks[16];

  TQ_DEVICE explicit WholeHadamard(int lane) {
    constexpr u32 kOne = kSpec.element == Element::f16 ? 0x3c00 : 0x3f80;
    const int column = lane / 4, row = 2 * (lane % 4);  // of H^T; and row + 1
    const u32 pair = (odd_parity(row & column & 3) ? 0x8000u : 0u) |
                     (odd_parity((row + 1) & column & 3) ? 0x80000000u : 0u) | kOne | kOne << 16;
#pragma unroll
    for (int pattern = 0; pattern < 16; ++pattern)
      blocks[pattern] = pair ^ ((pattern >> (row / 4 * 2 + column / 4) & 1) != 0 ? 0x80008000u : 0u);
  }

  static constexpr bool negative(int input, int output) {
    constexpr PaleySigns<kPaley> kSigns;
    const int row = kSpec.transposed ? input : output, column = kSpec.transposed ? output : input;
    return kSigns.negative[row / kSylvester][column / kSylvester] !=
           odd_parity(row % kSylvester & (column % kSylvester));
  }
  // Of the 8 inputs and the 8 outputs from there.
  static constexpr int pattern(int input, int output) {
    int bits = 0;
    for (int i = 0; i < 4; ++i) bits |= negative(input + i / 2 * 4, output + i % 2 * 4) ? 1 << i : 0;
    return bits;
  }
};

template <WhtSpec kSpec>
__global__ void __launch_bounds__(kWhtHalvesThreads) wht_halves(const __grid_constant__ WhtParams p) {
  constexpr int d = kSpec.order, kRows = kWhtHalvesRows, kRowPieces = d / 8, kStride = wht_halves_stride(d);
  constexpr int kTurns = kRows * kRowPieces / kLanes;  // pieces of 16 bytes a lane moves
  static_assert(transforms_halves(kSpec) && kRows * kRowPieces % kLanes == 0);
  const int lane = threadIdx.x % kLanes, warp = warp_index(), r = lane / 4, c = lane % 4;
  const i64 first = (static_cast<i64>(blockIdx.x) * (kWhtHalvesThreads / kLanes) + warp) * kRows;
  if (first >= p.rows) return;
  const int pieces = static_cast<int>(min(p.rows - first, static_cast<i64>(kRows))) * kRowPieces;
  u8* const rows = reinterpret_cast<u8*>(dynamic_shared) + warp * kRows * kStride;
  const auto piece_of = [&](int turn) { return turn * kLanes + lane; };
  const auto place = [&](int piece) {
    return reinterpret_cast<Vector4*>(rows + piece / kRowPieces * kStride + piece % kRowPieces * 16);
  };
  const auto pair = [&](int row, int coordinate) {
    return reinterpret_cast<u32*>(rows + row * kStride + coordinate * 2);
  };

  Vector4 moved[kTurns];
#pragma unroll
  for (int turn = 0; turn < kTurns; ++turn) {
    if (piece_of(turn) < pieces)
      moved[turn] = static_cast<const Vector4*>(p.in)[first * kRowPieces + piece_of(turn)];
  }
#pragma unroll
  for (int turn = 0; turn < kTurns; ++turn) {
    if (piece_of(turn) < pieces) *place(piece_of(turn)) = moved[turn];
  }
  __syncwarp();
  // Rows that do not exist give products that nobody reads.
  u32 x[d / 16][4];
#pragma unroll
  for (int k = 0; k < d / 16; ++k) {
#pragma unroll
    for (int i = 0; i < 4; ++i) x[k][i] = *pair(r + i % 2 * 8, 16 * k + i / 2 * 8 + 2 * c);
  }
  __syncwarp();

  const WholeHadamard<kSpec> h(lane);
  // Two columns at a time, whose sums do not wait for each other.
  static_for<d / 16>([&](auto columns) {
    float y[2][4] = {};
    static_for<d / 16>([&](auto k) {
      constexpr int kInput = 16 * decltype(k)::value;
      static_for<2>([&](auto column) {
        constexpr int kOutput = 16 * decltype(columns)::value + 8 * decltype(column)::value;
        using H = WholeHadamard<kSpec>;
        const u32 b[2] = {h.blocks[H::pattern(kInput, kOutput)], h.blocks[H::pattern(kInput + 8, kOutput)]};
        multiply_accumulate<kSpec.element>(y[decltype(column)::value], x[kInput / 16], b);
      });
    });
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const float* sums = y[i / 2] + i % 2 * 2;
      *pair(r + i % 2 * 8, 16 * decltype(columns)::value + i / 2 * 8 + 2 * c) =
          pack_elements<kSpec.element>(sums[0] * p.gain, sums[1] * p.gain);
    }
  });
  __syncwarp();
#pragma unroll
  for (int turn = 0; turn < kTurns; ++turn) {
    if (piece_of(turn) < pieces)
      static_cast<Vector4*>(p.out)[first * kRowPieces + piece_of(turn)] = *place(piece_of(turn));
  }
}

}  // namespace tq::gpu
