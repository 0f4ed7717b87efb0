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

// x[offset + i stride] becomes H x, or H^T x, over i.
template <int kOrder, bool kTransposed, int kStride, int kCount>
TQ_DEVICE void paley_transform(float (&x)[kCount], int offset) {
  constexpr PaleySigns<kOrder> signs;
  float y[kOrder];
  static_for<kOrder>([&](auto i) {
    float sum = 0;
    static_for<kOrder>([&](auto j) {
      constexpr bool kNegative = kTransposed ? signs.negative[decltype(j)::value][decltype(i)::value]
                                             : signs.negative[decltype(i)::value][decltype(j)::value];
      const float value = x[offset + decltype(j)::value * kStride];
      sum = kNegative ? sum - value : sum + value;
    });
    y[decltype(i)::value] = sum;
  });
#pragma unroll
  for (int i = 0; i < kOrder; ++i) x[offset + i * kStride] = y[i];
}

}  // namespace tq::gpu
