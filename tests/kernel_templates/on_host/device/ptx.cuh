#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

#include "core/half.h"
#include "shared/launch.h"
#include "shared/types.h"

// Stands in for kernel_templates/device/ptx.cuh where tests compile device headers for the host: CUDA's
// built-ins and the instructions behind PTX, one thread at a time. `threadIdx` is whatever the test sets it
// to.
namespace tq::gpu {

#define TQ_DEVICE inline

struct ThreadIndex {
  unsigned x = 0;
};
inline ThreadIndex threadIdx;
inline struct BlockSize { unsigned x = 1; } blockDim;

template <typename T>
constexpr T min(T a, T b) {
  return b < a ? b : a;
}
template <typename T>
constexpr T max(T a, T b) {
  return a < b ? b : a;
}

// cvt.rmi.u32.f32: towards minus infinity, saturating; NaN gives 0.
inline unsigned __float2uint_rd(float value) {
  if (std::isnan(value)) return 0;
  const double floor = std::floor(static_cast<double>(value));
  if (floor < 0) return 0;
  if (floor > std::numeric_limits<unsigned>::max()) return std::numeric_limits<unsigned>::max();
  return static_cast<unsigned>(floor);
}

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

}  // namespace tq::gpu
