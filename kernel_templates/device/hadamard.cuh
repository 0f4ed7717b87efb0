#pragma once

#include "device/element.cuh"
#include "device/paley.cuh"
#include "shared/hadamard_lanes.h"

// H of order d = m 2^k on vectors that a few lanes hold in registers: m = 1, or one Paley factor 12, 20,
// 28, 36.
//
//   m = 1: lane l of L holds the 8-vectors l, l + L, l + 2 L, ..: neighbouring lanes read neighbouring 16
//   bytes, and
//          all butterflies but log2 L run inside a lane.
//   m > 1: lane l of L holds coordinates e L + l; the low butterflies run across lanes, Paley's factor
//   inside.
namespace tq::gpu {

// At most one Paley factor; other orders go through shared memory (device/wht_mixed.cuh).
TQ_SHARED bool fits_registers(int d) {
  return odd_part(d) <= 9 && d % paley_order(d) == 0 && (odd_part(d) > 1 || d <= 1024);
}

template <int kOrder>
struct Hadamard {
  static_assert(fits_registers(kOrder));
  static constexpr int kPaley = paley_order(kOrder);
  static constexpr int kSylvester = kOrder / kPaley;
  static constexpr bool kContiguous = kPaley == 1;
  static constexpr int kWidth = hadamard_lanes(kOrder);
  static constexpr int kElements = kOrder / kWidth;
  static constexpr int kRows = kLanes / kWidth;  // vectors a warp

  using Registers = float[kElements];

  // Coordinate of element e in lane l of the vector's lanes.
  TQ_DEVICE static int coordinate(int e, int l) {
    return kContiguous ? (e / 8 * kWidth + l) * 8 + e % 8 : e * kWidth + l;
  }

  template <Element kElement>
  TQ_DEVICE static void load(const void* base, i64 row_offset, int l, Registers& x) {
    if constexpr (kContiguous) {
#pragma unroll
      for (int e = 0; e < kElements; e += 8) load_eight<kElement>(base, row_offset + coordinate(e, l), x + e);
    } else {
#pragma unroll
      for (int e = 0; e < kElements; ++e) x[e] = load_element<kElement>(base, row_offset + coordinate(e, l));
    }
  }
  template <Element kElement>
  TQ_DEVICE static void store(void* base, i64 row_offset, int l, const Registers& x) {
    if constexpr (kContiguous) {
#pragma unroll
      for (int e = 0; e < kElements; e += 8)
        store_eight<kElement>(base, row_offset + coordinate(e, l), x + e);
    } else {
#pragma unroll
      for (int e = 0; e < kElements; ++e) store_element<kElement>(base, row_offset + coordinate(e, l), x[e]);
    }
  }

  template <int kCount>
  TQ_DEVICE static void butterflies_inside(Registers& x, int first, int count_stride) {
#pragma unroll
    for (int h = 1; h < kCount; h <<= 1) {
#pragma unroll
      for (int i = 0; i < kCount; ++i) {
        if ((i & h) != 0) continue;
        float& a = x[first + i * count_stride];
        float& b = x[first + (i + h) * count_stride];
        const float sum = a + b;
        b = a - b;
        a = sum;
      }
    }
  }
  TQ_DEVICE static void butterflies_across(Registers& x, int l) {
#pragma unroll
    for (int mask = 1; mask < kWidth; mask <<= 1) {
      const float sign = (l & mask) != 0 ? -1.0f : 1.0f;
#pragma unroll
      for (int e = 0; e < kElements; ++e) x[e] = fmaf(sign, x[e], __shfl_xor_sync(kFullWarp, x[e], mask));
    }
  }

  // x becomes H x, or H^T x. All lanes of the warp take part.
  template <bool kTransposed>
  TQ_DEVICE static void transform(Registers& x, int l) {
    if constexpr (kContiguous) {
      butterflies_inside<kElements>(x, 0, 1);
      butterflies_across(x, l);
    } else {
      constexpr int kInside = kSylvester / kWidth;  // butterflies left for the lane, below Paley's factor
      butterflies_across(x, l);
#pragma unroll
      for (int i = 0; i < kPaley; ++i) butterflies_inside<kInside>(x, i * kInside, 1);
#pragma unroll
      for (int t = 0; t < kInside; ++t) paley_transform<kPaley, kTransposed, kInside>(x, t);
    }
  }
};

// H x for orders that are powers of two, of a vector that a whole warp holds: lane l has coordinates l k .. l
// k + k - 1, k = d / 32. For few vectors, whose latency counts.
TQ_SHARED bool fits_warp(int d) { return d % (2 * kLanes) == 0 && odd_part(d) == 1; }
template <int d>
TQ_DEVICE void warp_hadamard(float (&x)[d / kLanes]) {
  static_assert(fits_warp(d));
  constexpr int k = d / kLanes;
#pragma unroll
  for (int h = 1; h < k; h <<= 1) {
#pragma unroll
    for (int e = 0; e < k; ++e) {
      if ((e & h) != 0) continue;
      const float sum = x[e] + x[e + h];
      x[e + h] = x[e] - x[e + h];
      x[e] = sum;
    }
  }
#pragma unroll
  for (int mask = 1; mask < kLanes; mask <<= 1) {
    const float sign = (threadIdx.x & mask) != 0 ? -1.0f : 1.0f;
#pragma unroll
    for (int e = 0; e < k; ++e) x[e] = fmaf(sign, x[e], __shfl_xor_sync(kFullWarp, x[e], mask));
  }
}

}  // namespace tq::gpu
