#pragma once

#include "device/ptx.cuh"

// H D x on the tensor cores: 8 binary16 vectors x of d = 64, 128 or 256 coordinates, random signs D,
// Sylvester's H in its natural order (core/hadamard.h). Products with +-1 are exact and sums are float32.
//
// H_d is a Kronecker product over the bits of a coordinate, so each bit can be transformed where it lies.
// Lane l = 4 r + c loads 16 bytes of vector r at a time, lanes of neighbouring c neighbouring ones, and gets
// rows r and r + 8 of products, for vectors 2 c and 2 c + 1:
//
//   bit of the coordinate      7  6  5    4    3    2       1       0
//   as loaded                | load    |  c      |   word        | half |
//   in the result            | product |  r             | product| high |
//
// Bits 0, 2, 3, 4 are those of the 16 x 16 matrix A of a product A B: they make up rows r + 8 high and
// columns half + 2 c + 8 operand, the two operands of B being words 0 and 2 of a load, or 1 and 3. The others
// number the products. Two of them are transformed by adding four products, +-A each, on the tensor cores,
// the rest by butterflies inside the lane: nothing is shuffled.
namespace tq::gpu {

TQ_SHARED bool odd_parity(int bits) {
  for (int shift = 4; shift > 0; shift /= 2) bits ^= bits >> shift;
  return bits % 2 != 0;
}

// The coordinate that a lane of this c finds in half 0 or 1 of word 0 .. 3 of its load.
TQ_SHARED int loaded_coordinate(int c, int load, int word, int half) {
  return 32 * load + 8 * c + 2 * word + half;
}
// Its place among the words in the order of the products, two registers of B each.
TQ_SHARED int word_place(int load, int word) { return 2 * (2 * load + word % 2) + word / 2; }

// The coordinate of row r (`high` 0) or r + 8 (1) of a product's result.
TQ_SHARED int result_coordinate(int r, int product, int high) {
  return 32 * (product / 2) + 4 * r + 2 * (product % 2) + high;
}

// Register high + 2 * operand of A: +-1 for row r + 8 high and the columns of c.
TQ_SHARED u32 hadamard_operand(int lane, int reg) {
  constexpr u32 kOne = 0x3c00, kMinusOne = 0xbc00;
  const int row = result_coordinate(lane / 4, 0, reg % 2);
  const int column = loaded_coordinate(lane % 4, 0, 2 * (reg / 2), 0);
  return (odd_parity(row & column) ? kMinusOne : kOne) | (odd_parity(row & (column + 1)) ? kMinusOne : kOne)
                                                             << 16;
}

template <int d>
struct TensorHadamard {
  static_assert(d == 64 || d == 128 || d == 256);
  static constexpr int kLoads = d / 32, kWords = 4 * kLoads, kProducts = d / 16;
  using Words = u32[kWords];           // by word_place()
  using Result = float[kProducts][4];  // (r, 2c), (r, 2c + 1), then the same of r + 8
  using Flips = Vector4[kLoads][4];    // sign bits of D, for a load of the lanes of c

  u32 matrix[4], negative[4];

  TQ_DEVICE TensorHadamard() {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      matrix[i] = hadamard_operand(threadIdx.x % kLanes, i);
      hold(matrix[i]);
      negative[i] = matrix[i] ^ 0x80008000u;
      hold(negative[i]);
    }
  }

  // All threads of the block; the caller synchronises.
  TQ_DEVICE static void fill(Flips& flips, const float* signs) {
    for (int i = threadIdx.x; i < d / 2; i += blockDim.x)
      flips[i / 16][i / 4 % 4].x[i % 4] =
          (signs[2 * i] < 0 ? 0x8000u : 0u) | (signs[2 * i + 1] < 0 ? 0x80000000u : 0u);
  }

  // H x.
  TQ_DEVICE void transform(const Words& x, Result& y) const {
#pragma unroll
    for (int m = 0; m < kProducts; ++m) {
#pragma unroll
      for (int i = 0; i < 4; ++i) y[m][i] = 0;
    }
#pragma unroll
    for (int m = 0; m < kProducts; ++m) {
      const u32 b[2] = {x[2 * m], x[2 * m + 1]};
#pragma unroll
      for (int k = 0; k < 4; ++k)
        multiply_accumulate(y[m / 4 * 4 + k], odd_parity(m & k) ? negative : matrix, b);
    }
#pragma unroll
    for (int h = 4; h < kProducts; h *= 2) {
#pragma unroll
      for (int m = 0; m < kProducts; ++m) {
        if ((m & h) != 0) continue;
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const float sum = y[m][i] + y[m + h][i];
          y[m + h][i] = y[m][i] - y[m + h][i];
          y[m][i] = sum;
        }
      }
    }
  }

  // ||x||^2 of vectors 2c and 2c + 1: the diagonal of X^T X, where X is B and, transposed, 8 rows of A. The
  // other rows take the next word, which the other sum wants.
  TQ_DEVICE static void squares(const Words& x, float (&square)[2]) {
    float even[4] = {}, odd[4] = {};
#pragma unroll
    for (int m = 0; m < kProducts; ++m) {
      const u32 a[2] = {x[2 * m], x[2 * m + 1]};
      multiply_accumulate(even, a, a[0]);
      multiply_accumulate(odd, a, a[1]);
    }
    // Column n of row n stands in lane (r, c) = (n, n / 2).
    const int c = threadIdx.x % 4;
    square[0] = from_lane(even[0] + odd[2], 4 * (2 * c) + c);
    square[1] = from_lane(even[1] + odd[3], 4 * (2 * c + 1) + c);
  }
};

}  // namespace tq::gpu
