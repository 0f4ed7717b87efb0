#pragma once

#include "device/ptx.cuh"

// Paley's Hadamard matrices of order 12, 20 (I) and 28, 36 (II), signs known to the compiler: the same
// matrices as core/hadamard.cpp.
namespace tq::gpu {

template <int kOrder>
struct PaleySigns {
  static constexpr bool kSecond = kOrder == 28 || kOrder == 36;
  static constexpr int q = kSecond ? kOrder / 2 - 1 : kOrder - 1;
  bool negative[kOrder][kOrder] = {};

  static constexpr int character(int a) {
    a = (a % q + q) % q;
    if (a == 0) return 0;
    for (int x = 1; x < q; ++x) {
      if (x * x % q == a) return 1;
    }
    return -1;
  }
  // The conference matrix C: zero diagonal, ones in the first row.
  static constexpr int conference(int i, int j) {
    if (i == j) return 0;
    if (i == 0) return 1;
    if (j == 0) return q % 4 == 1 ? 1 : -1;
    return character(i - j);
  }
  constexpr PaleySigns() {
    for (int i = 0; i < kOrder; ++i) {
      for (int j = 0; j < kOrder; ++j) {
        if constexpr (kSecond) {
          const int c = conference(i / 2, j / 2), corner = i % 2 * 2 + j % 2;
          negative[i][j] = c == 0 ? corner != 0 : (corner == 3 ? c > 0 : c < 0);
        } else {
          negative[i][j] = i != j && conference(i, j) < 0;
        }
      }
    }
  }
};

// x[offset + i stride] becomes H x, or H^T x, over i. Four columns at a time: up to its sign, what they add
// to a row is one of eight sums, which all rows share, so that a row costs an addition for every four
// elements.
template <int kOrder, bool kTransposed, int kStride, int kCount>
TQ_DEVICE void paley_transform(float (&x)[kCount], int offset) {
  static constexpr PaleySigns<kOrder> signs;
  static_assert(kOrder % 4 == 0);
  float y[kOrder];
  static_for<kOrder / 4>([&](auto group) {
    constexpr int j = 4 * decltype(group)::value;
    const auto element = [&](int k) { return x[offset + (j + k) * kStride]; };
    const float a = element(0) + element(1), b = element(0) - element(1);
    const float c = element(2) + element(3), e = element(2) - element(3);
    const float sums[8] = {a + c, a - c, a + e, a - e, b + c, b - c, b + e, b - e};
    static_for<kOrder>([&](auto row) {
      constexpr int i = decltype(row)::value;
      constexpr auto negative = [](int k) {
        return kTransposed ? signs.negative[j + k][i] : signs.negative[i][j + k];
      };
      // Signs relative to the first column's.
      constexpr bool minus1 = negative(1) != negative(0), minus2 = negative(2) != negative(0),
                     minus3 = negative(3) != negative(0);
      const float sum = sums[(minus1 ? 4 : 0) + (minus2 == minus3 ? 0 : 2) + (minus2 ? 1 : 0)];
      if constexpr (j == 0) {
        y[i] = negative(0) ? -sum : sum;
      } else {
        y[i] = negative(0) ? y[i] - sum : y[i] + sum;
      }
    });
  });
#pragma unroll
  for (int i = 0; i < kOrder; ++i) x[offset + i * kStride] = y[i];
}

}  // namespace tq::gpu
