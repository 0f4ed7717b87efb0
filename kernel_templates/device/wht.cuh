#pragma once

#include "device/hadamard.cuh"
#include "shared/launch.h"
#include "shared/params.h"

// out = gain H x for every row, in place or not (core/hadamard.h).
namespace tq::gpu {

// The rows that a warp transforms at a time, between global memory, where they follow each other, and
// registers. Where a lane's coordinates lie apart (Paley's factor), through a warp's own shared memory, so
// that memory sees whole lines.
template <int kOrder, Element kElement>
struct WarpRows {
  using H = Hadamard<kOrder>;
  static constexpr bool kThroughShared = !H::kContiguous;
  static constexpr int kSize = element_bytes(kElement), kRowPieces = kOrder * kSize / 16;  // of 16 bytes
  static constexpr int kTurns = (H::kRows * kRowPieces + kLanes - 1) / kLanes;  // pieces a lane moves
  // A row's lanes apart from the next row's in their banks.
  static constexpr int kStride = kOrder + (H::kWidth < 4 ? 4 : H::kWidth);
  static constexpr int kBytes = kThroughShared ? H::kRows * kStride * kSize : 16;

  TQ_DEVICE static void load(const void* from, i64 first, int live, int lane, u8* shared,
                             typename H::Registers& x) {
    const int row = lane / H::kWidth, l = lane % H::kWidth;
    if constexpr (kThroughShared) {
      Vector4 v[kTurns];  // all on their way before the first is waited for
#pragma unroll
      for (int turn = 0; turn < kTurns; ++turn) {
        const int piece = turn * kLanes + lane;
        if (piece < live * kRowPieces)
          v[turn] = static_cast<const Vector4*>(from)[first * kRowPieces + piece];
      }
#pragma unroll
      for (int turn = 0; turn < kTurns; ++turn) {
        const int piece = turn * kLanes + lane;
        if (piece >= live * kRowPieces) continue;
        Vector2* to = place(shared, piece);
        to[0] = {v[turn].x[0], v[turn].x[1]};
        to[1] = {v[turn].x[2], v[turn].x[3]};
      }
      __syncwarp();
#pragma unroll
      for (int e = 0; e < H::kElements; ++e)
        x[e] = load_element<kElement>(shared, row * kStride + H::coordinate(e, l));
      __syncwarp();
    } else if (row < live) {
      H::template load<kElement>(from, (first + row) * kOrder, l, x);
    }
  }
  TQ_DEVICE static void store(void* to, i64 first, int live, int lane, u8* shared,
                              const typename H::Registers& x) {
    const int row = lane / H::kWidth, l = lane % H::kWidth;
    if constexpr (kThroughShared) {
#pragma unroll
      for (int e = 0; e < H::kElements; ++e)
        store_element<kElement>(shared, row * kStride + H::coordinate(e, l), x[e]);
      __syncwarp();
#pragma unroll
      for (int turn = 0; turn < kTurns; ++turn) {
        const int piece = turn * kLanes + lane;
        if (piece >= live * kRowPieces) continue;
        const Vector2* from = place(shared, piece);
        static_cast<Vector4*>(to)[first * kRowPieces + piece] = {from[0].x[0], from[0].x[1], from[1].x[0],
                                                                 from[1].x[1]};
      }
      __syncwarp();
    } else if (row < live) {
      H::template store<kElement>(to, (first + row) * kOrder, l, x);
    }
  }

 private:
  TQ_DEVICE static Vector2* place(u8* shared, int piece) {
    return reinterpret_cast<Vector2*>(shared + piece / kRowPieces * kStride * kSize +
                                      piece % kRowPieces * 16);
  }
};

template <WhtSpec kSpec>
__global__ void __launch_bounds__(kWhtThreads) wht(const __grid_constant__ WhtParams p) {
  using H = Hadamard<kSpec.order>;
  using Rows = WarpRows<kSpec.order, kSpec.element>;
  __shared__ alignas(16) u8 shared[kWhtThreads / kLanes][Rows::kBytes];
  const int lane = threadIdx.x % kLanes, warp = threadIdx.x / kLanes;
  const i64 warps = static_cast<i64>(gridDim.x) * (kWhtThreads / kLanes);
  i64 first = (static_cast<i64>(blockIdx.x) * (kWhtThreads / kLanes) + warp) * H::kRows;
  for (; first < p.rows; first += warps * H::kRows) {
    const int live = static_cast<int>(min(p.rows - first, static_cast<i64>(H::kRows)));
    typename H::Registers x = {};
    Rows::load(p.in, first, live, lane, shared[warp], x);
    H::template transform<kSpec.transposed>(x, lane % H::kWidth);
#pragma unroll
    for (int e = 0; e < H::kElements; ++e) x[e] *= p.gain;
    Rows::store(p.out, first, live, lane, shared[warp], x);
  }
}

}  // namespace tq::gpu
