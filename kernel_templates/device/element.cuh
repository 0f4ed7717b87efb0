#pragma once

#include "device/ptx.cuh"

// Vectors of float32, binary16 or bfloat16 in memory, float32 in registers.
namespace tq::gpu {

template <Element kElement>
TQ_DEVICE float load_element(const void* base, i64 index) {
  if constexpr (kElement == Element::f32) return static_cast<const float*>(base)[index];
  const u16 bits = static_cast<const u16*>(base)[index];
  return kElement == Element::f16 ? half_to_float(bits) : bfloat16_to_float(bits);
}

template <Element kElement>
TQ_DEVICE void store_element(void* base, i64 index, float value) {
  if constexpr (kElement == Element::f32) {
    static_cast<float*>(base)[index] = value;
  } else {
    static_cast<u16*>(base)[index] =
        kElement == Element::f16 ? float_to_half(value) : float_to_bfloat16(value);
  }
}

// Where the type is no specialisation: a few elements a block.
TQ_DEVICE float load_element(Element element, const void* base, i64 index) {
  return element == Element::f32   ? load_element<Element::f32>(base, index)
         : element == Element::f16 ? load_element<Element::f16>(base, index)
                                   : load_element<Element::bf16>(base, index);
}
// Neighbouring elements, all on their way at once.
template <int kCount>
TQ_DEVICE void load_elements(Element element, const void* base, i64 index, float (&x)[kCount]) {
  const auto load = [&](auto type) {
#pragma unroll
    for (int e = 0; e < kCount; ++e)
      x[e] = load_element<static_cast<Element>(decltype(type)::value)>(base, index + e);
  };
  if (element == Element::f32) return load(Index<static_cast<int>(Element::f32)>{});
  if (element == Element::f16) return load(Index<static_cast<int>(Element::f16)>{});
  load(Index<static_cast<int>(Element::bf16)>{});
}
TQ_DEVICE void store_element(Element element, void* base, i64 index, float value) {
  if (element == Element::f32) return store_element<Element::f32>(base, index, value);
  if (element == Element::f16) return store_element<Element::f16>(base, index, value);
  store_element<Element::bf16>(base, index, value);
}

// Eight neighbouring elements; `index` a multiple of 8 and the base aligned to 16 bytes.
template <Element kElement>
TQ_DEVICE void load_eight(const void* base, i64 index, float* x) {
  if constexpr (kElement == Element::f32) {
    const float4* from = reinterpret_cast<const float4*>(static_cast<const float*>(base) + index);
    const float4 a = from[0], b = from[1];
    x[0] = a.x, x[1] = a.y, x[2] = a.z, x[3] = a.w, x[4] = b.x, x[5] = b.y, x[6] = b.z, x[7] = b.w;
  } else {
    const Vector4 v = *reinterpret_cast<const Vector4*>(static_cast<const u16*>(base) + index);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const u16 low = static_cast<u16>(v.x[i]), high = static_cast<u16>(v.x[i] >> 16);
      x[2 * i] = kElement == Element::f16 ? half_to_float(low) : bfloat16_to_float(low);
      x[2 * i + 1] = kElement == Element::f16 ? half_to_float(high) : bfloat16_to_float(high);
    }
  }
}

// Two neighbouring 16-bit elements.
template <Element kElement>
TQ_DEVICE u32 pack_elements(float low, float high) {
  static_assert(kElement != Element::f32);
  if constexpr (kElement == Element::f16) return pack_half2(low, high);
  return float_to_bfloat16(low) | static_cast<u32>(float_to_bfloat16(high)) << 16;
}

template <Element kElement>
TQ_DEVICE void store_eight(void* base, i64 index, const float* x) {
  if constexpr (kElement == Element::f32) {
    float4* to = reinterpret_cast<float4*>(static_cast<float*>(base) + index);
    to[0] = make_float4(x[0], x[1], x[2], x[3]);
    to[1] = make_float4(x[4], x[5], x[6], x[7]);
  } else {
    Vector4 v;
#pragma unroll
    for (int i = 0; i < 4; ++i) v.x[i] = pack_elements<kElement>(x[2 * i], x[2 * i + 1]);
    *reinterpret_cast<Vector4*>(static_cast<u16*>(base) + index) = v;
  }
}

}  // namespace tq::gpu
