#pragma once

#include "shared/types.h"

// The instructions that C++ has no name for. No toolkit header is used, so that the driver and NVRTC suffice.
namespace tq::gpu {

#define TQ_DEVICE __device__ __forceinline__

// Calls f(Index<0>), ..., f(Index<N-1>): loops whose counter must be a constant.
template <int I>
struct Index {
  static constexpr int value = I;
};
template <int N, int I = 0, typename F>
TQ_DEVICE void static_for(F&& f) {
  if constexpr (I < N) {
    f(Index<I>{});
    static_for<N, I + 1>(f);
  }
}

TQ_DEVICE float infinity() { return __int_as_float(0x7f800000); }

// binary16 and bfloat16 as bit patterns, rounded to nearest even.
TQ_DEVICE float half_to_float(u16 bits) {
  float value;
  asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(bits));
  return value;
}
TQ_DEVICE u16 float_to_half(float value) {
  u16 bits;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(value));
  return bits;
}
// Overflow gives the largest finite half, as core/half.h; NaN stays NaN.
TQ_DEVICE u16 float_to_half_saturate(float value) {
  return float_to_half(value > 65504.0f ? 65504.0f : value < -65504.0f ? -65504.0f : value);
}
TQ_DEVICE float bfloat16_to_float(u16 bits) { return __int_as_float(static_cast<int>(bits) << 16); }
TQ_DEVICE u16 float_to_bfloat16(float value) {
  u16 bits;
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(bits) : "f"(value));
  return bits;
}

// Two halves in a register, the first in the low 16 bits.
TQ_DEVICE u32 pack_half2(float low, float high) {
  u32 packed;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(high), "f"(low));
  return packed;
}
TQ_DEVICE u32 multiply_half2(u32 a, u32 b) {
  u32 product;
  asm("mul.rn.f16x2 %0, %1, %2;" : "=r"(product) : "r"(a), "r"(b));
  return product;
}
TQ_DEVICE u32 subtract_half2(u32 a, u32 b) {
  u32 difference;
  asm("sub.rn.f16x2 %0, %1, %2;" : "=r"(difference) : "r"(a), "r"(b));
  return difference;
}

TQ_DEVICE float exp2_approx(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// Bytes of {a, b} picked by the four nibbles of `selector`; b's are 4..7.
TQ_DEVICE u32 permute_bytes(u32 a, u32 b, u32 selector) { return __byte_perm(a, b, selector); }

// C += A B on the tensor cores: A 16 x 16 and B 16 x 8 binary16, C 16 x 8 float32. With r = lane / 4 and
// c = lane % 4, a[0..3] are the pairs (row r or r + 8, columns 2c, 2c+1 or 8 more) in the order (r, 2c),
// (r+8, 2c), (r, 2c+8), (r+8, 2c+8); b[0..1] rows 2c, 2c+1 or 8 more of column r; c[0..3] rows r, r, r+8, r+8
// and columns 2c, 2c+1.
TQ_DEVICE void multiply_accumulate(float (&sum)[4], const u32 (&a)[4], const u32 (&b)[2]) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// Transposes an 8 x 8 matrix of 16-bit elements that a warp holds as a fragment.
TQ_DEVICE u32 transpose_8x8(u32 fragment) {
  u32 transposed;
  asm("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(transposed) : "r"(fragment));
  return transposed;
}

struct alignas(16) Vector4 {
  u32 x[4];
};
struct alignas(8) Vector2 {
  u32 x[2];
};

// Read once and not again: past L1.
TQ_DEVICE Vector4 load_stream16(const void* address) {
  Vector4 v;
  asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0,%1,%2,%3}, [%4];"
               : "=r"(v.x[0]), "=r"(v.x[1]), "=r"(v.x[2]), "=r"(v.x[3])
               : "l"(address));
  return v;
}
TQ_DEVICE u32 load_stream4(const void* address) {
  u32 v;
  asm volatile("ld.global.nc.L1::no_allocate.u32 %0, [%1];" : "=r"(v) : "l"(address));
  return v;
}

// Shared memory by its own 32-bit address.
TQ_DEVICE u32 shared_address(const void* pointer) {
  return static_cast<u32>(__cvta_generic_to_shared(pointer));
}
template <int kOffset>
TQ_DEVICE u32 load_shared(u32 address) {
  u32 v;
  asm volatile("ld.shared.u32 %0, [%1 + %2];" : "=r"(v) : "r"(address), "n"(kOffset));
  return v;
}
template <int kOffset>
TQ_DEVICE Vector2 load_shared2(u32 address) {
  Vector2 v;
  asm volatile("ld.shared.v2.u32 {%0,%1}, [%2 + %3];" : "=r"(v.x[0]), "=r"(v.x[1]) : "r"(address), "n"(kOffset));
  return v;
}

inline constexpr u32 kFullWarp = 0xffffffffu;

// Over groups of `kWidth` neighbouring lanes; every lane gets the result.
template <int kWidth>
TQ_DEVICE float lane_sum(float x) {
#pragma unroll
  for (int mask = 1; mask < kWidth; mask <<= 1) x += __shfl_xor_sync(kFullWarp, x, mask);
  return x;
}
template <int kWidth>
TQ_DEVICE float lane_max(float x) {
#pragma unroll
  for (int mask = 1; mask < kWidth; mask <<= 1) x = fmaxf(x, __shfl_xor_sync(kFullWarp, x, mask));
  return x;
}
template <int kWidth>
TQ_DEVICE float lane_min(float x) {
#pragma unroll
  for (int mask = 1; mask < kWidth; mask <<= 1) x = fminf(x, __shfl_xor_sync(kFullWarp, x, mask));
  return x;
}

// The power of two of x's exponent and its reciprocal, kept inside what float32 can invert: a vector is scaled by
// it before its squares are summed, so that neither 1e-30 nor 1e30 leaves the range. As core/rotation-inl.h.
struct PowerOfTwo {
  float power, inverse;
};
TQ_DEVICE PowerOfTwo power_of_two(float largest) {
  int exponent = __float_as_int(largest) & 0x7f800000;
  exponent = min(max(exponent, 1 << 23), 253 << 23);
  return {__int_as_float(exponent), __int_as_float((254 << 23) - exponent)};
}

extern __shared__ Vector4 dynamic_shared[];

}  // namespace tq::gpu
