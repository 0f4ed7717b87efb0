#pragma once

#include <algorithm>
#include <array>
#include <barrier>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <thread>
#include <vector>

#include "core/half.h"
#include "shared/launch.h"
#include "shared/types.h"

// Stands in for kernel_templates/device/ptx.cuh where tests compile device headers for the host: CUDA's
// built-ins and the instructions behind PTX. A test calls device functions as one thread, `threadIdx` being
// whatever it sets it to, or runs a kernel's blocks with a host thread a device thread (run_grid()).
namespace tq::gpu {

#define TQ_DEVICE inline
#define __global__
#define __launch_bounds__(...)
#define __grid_constant__

struct Index3 {
  unsigned x = 0, y = 0, z = 0;
};
inline thread_local Index3 threadIdx;
inline Index3 blockIdx, gridDim{1, 1, 1}, blockDim{1, 1, 1};

// What the 32 threads of a warp show each other.
struct Warp {
  std::barrier<> barrier{kLanes};
  alignas(16) std::array<std::byte, 32> shown[kLanes];
};
inline thread_local Warp* this_warp;
inline thread_local std::barrier<>* this_block;

// Every lane's value, once all have come here.
template <typename T>
std::array<T, kLanes> warp_values(const T& value) {
  static_assert(sizeof(T) <= sizeof(Warp::shown[0]));
  std::memcpy(&this_warp->shown[threadIdx.x % kLanes], &value, sizeof(T));
  this_warp->barrier.arrive_and_wait();
  std::array<T, kLanes> all;
  for (int lane = 0; lane < kLanes; ++lane)
    std::memcpy(&all[static_cast<std::size_t>(lane)], &this_warp->shown[lane], sizeof(T));
  this_warp->barrier.arrive_and_wait();
  return all;
}
inline void __syncwarp() { this_warp->barrier.arrive_and_wait(); }
inline void __syncthreads() { this_block->arrive_and_wait(); }

inline constexpr u32 kFullWarp = 0xffffffffu;
inline int warp_index() { return static_cast<int>(threadIdx.x) / kLanes; }
inline float from_lane(float x, int lane) { return warp_values(x)[static_cast<std::size_t>(lane)]; }
inline float __shfl_xor_sync(u32, float x, int mask) {
  return from_lane(x, static_cast<int>(threadIdx.x % kLanes) ^ mask);
}

template <typename T>
constexpr T min(T a, T b) {
  return b < a ? b : a;
}
template <typename T>
constexpr T max(T a, T b) {
  return a < b ? b : a;
}

inline u32 __float_as_uint(float value) { return std::bit_cast<u32>(value); }
inline float __uint_as_float(u32 bits) { return std::bit_cast<float>(bits); }

inline void hold(u32&) {}
inline float fma_saturate(float a, float b, float c) {
  const float sum = std::fmaf(a, b, c);
  return sum > 0 ? std::min(sum, 1.0f) : 0.0f;
}
inline u32 count_greater(u32 count, float a, float b) { return count + (a > b ? 1 : 0); }
inline float sqrt_approx(float x) { return std::sqrt(x); }
inline float rsqrt_approx(float x) { return 1 / std::sqrt(x); }

inline float half_to_float(u16 bits) { return tq::half_to_float(bits); }
inline u16 float_to_half_saturate(float value) { return tq::float_to_half_saturate(value); }

template <int I>
struct Index {
  static constexpr int value = I;
};
template <int N, int I = 0, typename F>
void static_for(F&& f) {
  if constexpr (I < N) {
    f(Index<I>{});
    static_for<N, I + 1>(f);
  }
}

inline u32 pack_half2(float low, float high) {
  return tq::float_to_half(low) | static_cast<u32>(tq::float_to_half(high)) << 16;
}
inline u32 subtract_half2(u32 a, u32 b) {
  const auto part = [&](int shift) {
    return tq::half_to_float(static_cast<u16>(a >> shift)) - tq::half_to_float(static_cast<u16>(b >> shift));
  };
  return pack_half2(part(0), part(16));
}

inline u32 pack_half2_saturate(float low, float high) {
  return tq::float_to_half_saturate(low) | static_cast<u32>(tq::float_to_half_saturate(high)) << 16;
}

// Rows 2c, 2c + 1 of column r of B, or of row r of A: what a register holds in lane 4 r + c.
template <Element kElement>
double element_of(u32 pair, int i) {
  const u16 bits = static_cast<u16>(pair >> 16 * i);
  return kElement == Element::f16 ? tq::half_to_float(bits) : tq::bfloat16_to_float(bits);
}

template <int kRegisters, Element kElement = Element::f16>
void multiply_accumulate_on_host(float (&sum)[4], const u32 (&a)[2 * kRegisters],
                                 const u32 (&b)[kRegisters]) {
  struct Fragments {
    u32 a[2 * kRegisters], b[kRegisters];
  } mine;
  std::copy(std::begin(a), std::end(a), mine.a);
  std::copy(std::begin(b), std::end(b), mine.b);
  const auto all = warp_values(mine);
  const int lane = static_cast<int>(threadIdx.x % kLanes), r = lane / 4, c = lane % 4;
  for (int i = 0; i < 4; ++i) {
    double total = sum[i];
    for (int k = 0; k < 8 * kRegisters; ++k) {
      const int at = k % 8 / 2, column = 2 * c + i % 2;
      total += element_of<kElement>(all[static_cast<std::size_t>(4 * r + at)].a[2 * (k / 8) + i / 2], k % 2) *
               element_of<kElement>(all[static_cast<std::size_t>(4 * column + at)].b[k / 8], k % 2);
    }
    sum[i] = static_cast<float>(total);
  }
}
inline void multiply_accumulate(float (&sum)[4], const u32 (&a)[4], const u32 (&b)[2]) {
  multiply_accumulate_on_host<2>(sum, a, b);
}
template <Element kElement>
void multiply_accumulate(float (&sum)[4], const u32 (&a)[4], const u32 (&b)[2]) {
  multiply_accumulate_on_host<2, kElement>(sum, a, b);
}
inline void multiply_accumulate(float (&sum)[4], const u32 (&a)[2], u32 b) {
  const u32 one[1] = {b};
  multiply_accumulate_on_host<1>(sum, a, one);
}

// prmt without its sign mode: nibble i of the selector names byte i of the result.
inline u32 permute_bytes(u32 a, u32 b, u32 selector) {
  const std::uint64_t bytes = static_cast<std::uint64_t>(b) << 32 | a;
  u32 result = 0;
  for (int i = 0; i < 4; ++i)
    result |= static_cast<u32>(bytes >> 8 * (selector >> 4 * i & 7u) & 0xffu) << 8 * i;
  return result;
}

struct alignas(16) Vector4 {
  u32 x[4];
};
struct alignas(8) Vector2 {
  u32 x[2];
};
struct alignas(16) float4 {
  float x, y, z, w;
};
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }

inline Vector4 load_stream16(const void* address) {
  Vector4 value;
  std::memcpy(&value, address, sizeof(value));
  return value;
}
inline u32 load_stream4(const void* address) {
  u32 value;
  std::memcpy(&value, address, sizeof(value));
  return value;
}

template <bool>
Vector4 load16(const void* address) {
  return load_stream16(address);
}
template <bool>
u32 load4(const void* address) {
  return load_stream4(address);
}

// As much as a block can have; shared addresses count from its beginning.
inline Vector4 dynamic_shared[(227 << 10) / sizeof(Vector4)];
inline u32 shared_address(const void* pointer) {
  return static_cast<u32>(static_cast<const char*>(pointer) - reinterpret_cast<const char*>(dynamic_shared));
}
template <int kWords>
void load_shared(u32 address, u32* v) {
  std::memcpy(v, reinterpret_cast<const char*>(dynamic_shared) + address, kWords * sizeof(u32));
}

// Runs a kernel as a launch of `grid` blocks would, one block after the other.
template <typename Kernel, typename Params>
void run_grid(Kernel kernel, Index3 grid, int threads, const Params& params) {
  gridDim = grid;
  blockDim.x = static_cast<unsigned>(threads);
  const unsigned blocks = grid.x * grid.y * grid.z;
  for (unsigned i = 0; i < blocks; ++i) {
    blockIdx = {i % grid.x, i / grid.x % grid.y, i / grid.x / grid.y};
    std::memset(dynamic_shared, 0xff, sizeof(dynamic_shared));  // not-a-number until written
    std::barrier<> block(threads);
    std::vector<Warp> warps(static_cast<std::size_t>(threads / kLanes));
    std::vector<std::jthread> running;
    for (int t = 0; t < threads; ++t) {
      running.emplace_back([&, t] {
        threadIdx.x = static_cast<unsigned>(t);
        this_warp = &warps[static_cast<std::size_t>(t / kLanes)];
        this_block = &block;
        kernel(params);
      });
    }
  }
  gridDim = blockDim = {1, 1, 1};
}

}  // namespace tq::gpu
