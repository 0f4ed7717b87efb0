#pragma once

// What both sides of a launch agree on. Files in shared/ are read by the host compiler and by NVRTC, so they
// include nothing but each other.
namespace tq::gpu {

using u8 = unsigned char;
using u16 = unsigned short;
using u32 = unsigned int;
using i64 = long long;

#ifdef __CUDACC_RTC__
#define TQ_SHARED __host__ __device__ __forceinline__ constexpr
#else
#define TQ_SHARED inline constexpr
#endif

inline constexpr int kLanes = 32;  // of a warp

// Element type of vectors that come from or go to another framework.
enum class Element { f32, f16, bf16 };

TQ_SHARED int element_bytes(Element element) { return element == Element::f32 ? 4 : 2; }

}  // namespace tq::gpu
