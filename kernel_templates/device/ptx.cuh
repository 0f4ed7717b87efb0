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

// Keeps a value in its register where the compiler would rather compute it again.
TQ_DEVICE void hold(u32& value) { asm volatile("" : "+r"(value)); }

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
// a b + c, rounded once.
TQ_DEVICE u32 fused_multiply_add_half2(u32 a, u32 b, u32 c) {
  u32 sum;
  asm("fma.rn.f16x2 %0, %1, %2, %3;" : "=r"(sum) : "r"(a), "r"(b), "r"(c));
  return sum;
}
TQ_DEVICE u32 subtract_half2(u32 a, u32 b) {
  u32 difference;
  asm("sub.rn.f16x2 %0, %1, %2;" : "=r"(difference) : "r"(a), "r"(b));
  return difference;
}

// As float_to_half_saturate, two at a time.
TQ_DEVICE u32 pack_half2_saturate(float low, float high) {
  u32 packed = pack_half2(low, high);
  asm("min.NaN.f16x2 %0, %0, %1;" : "+r"(packed) : "r"(0x7bff7bffu));
  asm("max.NaN.f16x2 %0, %0, %1;" : "+r"(packed) : "r"(0xfbfffbffu));
  return packed;
}

// a b + c, clamped to 0 .. 1; NaN gives 0.
TQ_DEVICE float fma_saturate(float a, float b, float c) {
  float result;
  asm("fma.rn.sat.f32 %0, %1, %2, %3;" : "=f"(result) : "f"(a), "f"(b), "f"(c));
  return result;
}

// count + (a > b), in two instructions.
TQ_DEVICE u32 count_greater(u32 count, float a, float b) {
  asm("{ .reg .pred p; setp.gt.f32 p, %1, %2; @p add.u32 %0, %0, 1; }" : "+r"(count) : "f"(a), "f"(b));
  return count;
}

// To two units in the last place; subnormal numbers count as 0.
TQ_DEVICE float sqrt_approx(float x) {
  float y;
  asm("sqrt.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
TQ_DEVICE float rsqrt_approx(float x) {
  float y;
  asm("rsqrt.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
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
  asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
      "{%0,%1,%2,%3};"
      : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// The same of binary16 or bfloat16.
template <Element kElement>
TQ_DEVICE void multiply_accumulate(float (&sum)[4], const u32 (&a)[4], const u32 (&b)[2]) {
  static_assert(kElement != Element::f32);
  if constexpr (kElement == Element::f16) return multiply_accumulate(sum, a, b);
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
      "{%0,%1,%2,%3};"
      : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// Of binary16 again, half as many columns of A and rows of B: a[0..1] rows r and r + 8, columns 2c and 2c+1.
TQ_DEVICE void multiply_accumulate(float (&sum)[4], const u32 (&a)[2], u32 b) {
  asm("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5}, {%6}, {%0,%1,%2,%3};"
      : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
      : "r"(a[0]), "r"(a[1]), "r"(b));
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

template <bool kShared>
TQ_DEVICE Vector4 load16(const void* address) {
  if constexpr (kShared) return *static_cast<const Vector4*>(address);
  return load_stream16(address);
}
template <bool kShared>
TQ_DEVICE u32 load4(const void* address) {
  if constexpr (kShared) return *static_cast<const u32*>(address);
  return load_stream4(address);
}

// What another block has written during this launch: past L1, which would not know.
TQ_DEVICE float2 load_other_block2(const float* address) {
  float2 v;
  asm volatile("ld.global.cg.v2.f32 {%0,%1}, [%2];" : "=f"(v.x), "=f"(v.y) : "l"(address) : "memory");
  return v;
}
TQ_DEVICE float4 load_other_block4(const float* address) {
  float4 v;
  asm volatile("ld.global.cg.v4.f32 {%0,%1,%2,%3}, [%4];"
               : "=f"(v.x), "=f"(v.y), "=f"(v.z), "=f"(v.w)
               : "l"(address)
               : "memory");
  return v;
}

// Adds, and orders what the block has written before (a barrier earlier) before it, and it before what the
// block reads after (a barrier later).
TQ_DEVICE u32 add_acquire_release(u32* address, u32 value) {
  u32 before;
  asm volatile("atom.add.acq_rel.gpu.global.u32 %0, [%1], %2;"
               : "=r"(before)
               : "l"(address), "r"(value)
               : "memory");
  return before;
}

// Of a launch that waits itself (jit/kernel.h): called before anything that the stream's previous kernel may
// have written is read, or what it may still read is written. Then the stream's next kernel may begin, as
// blocks of this one make room; nothing is lost where it does not wait itself.
TQ_DEVICE void follow_previous_launch() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" : : : "memory");
  asm volatile("griddepcontrol.launch_dependents;" : : : "memory");
#endif
}

// 16 bytes from global to shared memory behind the thread's back. Copies that a thread has started since its
// last commit form a group; wait_copies<n> returns when all groups but the n latest have arrived.
TQ_DEVICE void copy_async16(void* shared, const void* global) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;"
               :
               : "r"(static_cast<u32>(__cvta_generic_to_shared(shared))), "l"(global)
               : "memory");
}
TQ_DEVICE void commit_copies() { asm volatile("cp.async.commit_group;" : : : "memory"); }
template <int kPending>
TQ_DEVICE void wait_copies() {
  asm volatile("cp.async.wait_group %0;" : : "n"(kPending) : "memory");
}

// Shared memory by its own 32-bit address; `kWords` words, aligned to as many.
TQ_DEVICE u32 shared_address(const void* pointer) {
  return static_cast<u32>(__cvta_generic_to_shared(pointer));
}
template <int kWords>
TQ_DEVICE void load_shared(u32 address, u32* v) {
  if constexpr (kWords == 4) {
    asm volatile("ld.shared.v4.u32 {%0,%1,%2,%3}, [%4];"
                 : "=r"(v[0]), "=r"(v[1]), "=r"(v[2]), "=r"(v[3])
                 : "r"(address));
  } else if constexpr (kWords == 2) {
    asm volatile("ld.shared.v2.u32 {%0,%1}, [%2];" : "=r"(v[0]), "=r"(v[1]) : "r"(address));
  } else {
    asm volatile("ld.shared.u32 %0, [%1];" : "=r"(v[0]) : "r"(address));
  }
}

inline constexpr u32 kFullWarp = 0xffffffffu;

// The warp's index in the block, in a way that shows the compiler that all lanes agree.
TQ_DEVICE int warp_index() { return __shfl_sync(kFullWarp, static_cast<int>(threadIdx.x) / kLanes, 0); }

TQ_DEVICE float from_lane(float x, int lane) { return __shfl_sync(kFullWarp, x, lane); }

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

// The power of two of x's exponent and its reciprocal, kept inside what float32 can invert: a vector is
// scaled by it before its squares are summed, so that neither 1e-30 nor 1e30 leaves the range. As
// core/rotation-inl.h.
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
