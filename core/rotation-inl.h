// Rotations and sketches on tiles (core/tile.h). Included once for every SIMD target.
#if defined(TQ_CORE_ROTATION_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef TQ_CORE_ROTATION_INL_H_
#undef TQ_CORE_ROTATION_INL_H_
#else
#define TQ_CORE_ROTATION_INL_H_
#endif

#include <cmath>

#include "core/rotation.h"
#include "core/sketch.h"
#include "core/tile-inl.h"

HWY_BEFORE_NAMESPACE();
namespace tq::HWY_NAMESPACE {

// Divides every vector of the tile by its norm, in place; a zero vector stays zero. Returns the norms. An
// exact power of two is taken out first, so that neither the squares of 1e-30 nor those of 1e30 leave
// float32's range.
HWY_INLINE FloatRow normalise_tile(float* HWY_RESTRICT tile, std::size_t d) {
  FloatRow largest = broadcast(0);
  for (std::size_t j = 0; j < d; ++j) {
    const FloatRow x = load(tile + j * kTileRows);
    for (std::size_t i = 0; i < kVectors; ++i) largest.v[i] = hn::Max(largest.v[i], hn::Abs(x.v[i]));
  }
  FloatRow power, inverse_power;
  for (std::size_t i = 0; i < kVectors; ++i) {
    const auto exponent = hn::And(hn::BitCast(Int(), largest.v[i]), hn::Set(Int(), 0x7f800000));
    const auto clamped = hn::Min(hn::Max(exponent, hn::Set(Int(), 1 << 23)), hn::Set(Int(), 253 << 23));
    power.v[i] = hn::BitCast(Float(), clamped);
    inverse_power.v[i] = hn::BitCast(Float(), hn::Sub(hn::Set(Int(), 254 << 23), clamped));
  }
  FloatRow sum[4] = {broadcast(0), broadcast(0), broadcast(0), broadcast(0)};
  for (std::size_t j = 0; j < d; j += 4) {
    for (std::size_t k = 0; k < 4; ++k) {
      const FloatRow x = mul(load(tile + (j + k) * kTileRows), inverse_power);
      sum[k] = mul_add(x, x, sum[k]);
    }
  }
  const FloatRow square = add(add(sum[0], sum[1]), add(sum[2], sum[3]));
  FloatRow norm, scale;
  for (std::size_t i = 0; i < kVectors; ++i) {
    const auto root = hn::Sqrt(square.v[i]);
    norm.v[i] = hn::Mul(root, power.v[i]);
    const auto zero = hn::Eq(root, hn::Zero(Float()));
    scale.v[i] = hn::IfThenZeroElse(zero, hn::Div(hn::Set(Float(), 1), root));
  }
  for (std::size_t j = 0; j < d; ++j) {
    store(mul(mul(load(tile + j * kTileRows), inverse_power), scale), tile + j * kTileRows);
  }
  return norm;
}

// Sylvester factor: butterflies over blocks of `order` coordinates, two stages a pass over the tile.
HWY_INLINE void sylvester_in_place(float* HWY_RESTRICT tile, std::size_t order, std::size_t d) {
  std::size_t h = 1;
  for (; 4 * h <= order; h *= 4) {
    const std::size_t step = h * kTileRows;
    for (std::size_t i = 0; i < d; i += 4 * h) {
      float* p = tile + i * kTileRows;
      for (std::size_t j = 0; j < h; ++j, p += kTileRows) {
        const FloatRow a = load(p), b = load(p + step), c = load(p + 2 * step), e = load(p + 3 * step);
        const FloatRow ab = add(a, b), ba = sub(a, b), ce = add(c, e), ec = sub(c, e);
        store(add(ab, ce), p);
        store(add(ba, ec), p + step);
        store(sub(ab, ce), p + 2 * step);
        store(sub(ba, ec), p + 3 * step);
      }
    }
  }
  if (h < order) {
    const std::size_t step = h * kTileRows;
    for (std::size_t i = 0; i < d; i += 2 * h) {
      float* p = tile + i * kTileRows;
      for (std::size_t j = 0; j < h; ++j, p += kTileRows) {
        const FloatRow a = load(p), b = load(p + step);
        store(add(a, b), p);
        store(sub(a, b), p + step);
      }
    }
  }
}

// Paley factor of order m on coordinates `stride` apart, in every block of m * stride; its transpose when
// asked.
HWY_INLINE void paley_in_place(float* HWY_RESTRICT tile, std::size_t m, std::size_t stride, std::size_t d,
                               bool transpose) {
  const float* HWY_RESTRICT matrix = paley_matrix(static_cast<int>(m)).data();
  HWY_ALIGN float column[36 * kTileRows];
  const std::size_t row_step = transpose ? 1 : m, column_step = transpose ? m : 1;
  for (std::size_t block = 0; block < d; block += m * stride) {
    for (std::size_t inner = 0; inner < stride; ++inner) {
      float* p = tile + (block + inner) * kTileRows;
      for (std::size_t i = 0; i < m; ++i) store(load(p + i * stride * kTileRows), column + i * kTileRows);
      for (std::size_t i = 0; i < m; i += 4) {
        FloatRow sum[4] = {broadcast(0), broadcast(0), broadcast(0), broadcast(0)};
        for (std::size_t j = 0; j < m; ++j) {
          const FloatRow x = load(column + j * kTileRows);
          for (std::size_t k = 0; k < 4; ++k) {
            sum[k] = mul_add(broadcast(matrix[(i + k) * row_step + j * column_step]), x, sum[k]);
          }
        }
        for (std::size_t k = 0; k < 4; ++k) store(sum[k], p + (i + k) * stride * kTileRows);
      }
    }
  }
}

// H x or H^T x. The factors of a Kronecker product act on different indices, so their order does not matter.
HWY_INLINE void hadamard_in_place(const HadamardPlan& plan, float* HWY_RESTRICT tile, std::size_t d,
                                  bool transpose) {
  std::size_t stride = static_cast<std::size_t>(plan.sylvester_order);
  sylvester_in_place(tile, stride, d);
  for (std::size_t k = plan.paley_orders.size(); k-- > 0;) {
    const std::size_t m = static_cast<std::size_t>(plan.paley_orders[k]);
    paley_in_place(tile, m, stride, d, transpose);
    stride *= m;
  }
}

// out = M in for a row-major d x d matrix. Sums of 64 products are added up, which keeps the rounding error
// small.
HWY_INLINE void dense_apply(const float* HWY_RESTRICT matrix, const float* HWY_RESTRICT in, std::size_t d,
                            float* HWY_RESTRICT out) {
  constexpr std::size_t kOutputs = 4, kRun = 64;
  for (std::size_t i = 0; i < d; i += kOutputs) {
    FloatRow total[kOutputs] = {broadcast(0), broadcast(0), broadcast(0), broadcast(0)};
    for (std::size_t start = 0; start < d; start += kRun) {
      const std::size_t end = HWY_MIN(d, start + kRun);
      FloatRow sum[kOutputs] = {broadcast(0), broadcast(0), broadcast(0), broadcast(0)};
      for (std::size_t j = start; j < end; ++j) {
        const FloatRow x = load(in + j * kTileRows);
        for (std::size_t k = 0; k < kOutputs; ++k) {
          sum[k] = mul_add(broadcast(matrix[(i + k) * d + j]), x, sum[k]);
        }
      }
      for (std::size_t k = 0; k < kOutputs; ++k) total[k] = add(total[k], sum[k]);
    }
    for (std::size_t k = 0; k < kOutputs; ++k) store(total[k], out + (i + k) * kTileRows);
  }
}

// out = Pi in; `in` is overwritten. `gain` multiplies every vector (1, or sqrt(d) for a sketch).
HWY_INLINE void rotate_tile(const Rotation& rotation, float* HWY_RESTRICT in, float* HWY_RESTRICT out,
                            float gain = 1.0f) {
  const std::size_t d = static_cast<std::size_t>(rotation.head_dim());
  if (rotation.kind() == RotationKind::qr) return dense_apply(rotation.matrix().data(), in, d, out);
  const float* HWY_RESTRICT signs = rotation.signs().data();
  const std::uint16_t* HWY_RESTRICT permutation = rotation.permutation().data();
  for (std::size_t j = 0; j < d; ++j) {
    store(mul(load(in + j * kTileRows), broadcast(signs[j])), in + j * kTileRows);
  }
  hadamard_in_place(rotation.hadamard(), in, d, false);
  const FloatRow scale = broadcast(gain / std::sqrt(static_cast<float>(d)));
  for (std::size_t i = 0; i < d; ++i) {
    store(mul(load(in + permutation[i] * kTileRows), scale), out + i * kTileRows);
  }
}

// out = Pi^T in; `in` is kept.
HWY_INLINE void unrotate_tile(const Rotation& rotation, const float* HWY_RESTRICT in, float* HWY_RESTRICT out,
                              float gain = 1.0f) {
  const std::size_t d = static_cast<std::size_t>(rotation.head_dim());
  if (rotation.kind() == RotationKind::qr) return dense_apply(rotation.transposed().data(), in, d, out);
  const float* HWY_RESTRICT signs = rotation.signs().data();
  const std::uint16_t* HWY_RESTRICT permutation = rotation.permutation().data();
  for (std::size_t i = 0; i < d; ++i) store(load(in + i * kTileRows), out + permutation[i] * kTileRows);
  hadamard_in_place(rotation.hadamard(), out, d, true);
  const float scale = gain / std::sqrt(static_cast<float>(d));
  for (std::size_t j = 0; j < d; ++j) {
    store(mul(load(out + j * kTileRows), broadcast(scale * signs[j])), out + j * kTileRows);
  }
}

// out = S in; `in` is overwritten.
HWY_INLINE void sketch_tile(const Sketch& sketch, float* HWY_RESTRICT in, float* HWY_RESTRICT out) {
  const std::size_t d = static_cast<std::size_t>(sketch.head_dim());
  if (sketch.kind() == SketchKind::gaussian) return dense_apply(sketch.matrix().data(), in, d, out);
  rotate_tile(sketch.rht(), in, out, std::sqrt(static_cast<float>(d)));
}

// out = S^T in; `in` is kept.
HWY_INLINE void back_project_tile(const Sketch& sketch, const float* HWY_RESTRICT in,
                                  float* HWY_RESTRICT out) {
  const std::size_t d = static_cast<std::size_t>(sketch.head_dim());
  if (sketch.kind() == SketchKind::gaussian) return dense_apply(sketch.transposed().data(), in, d, out);
  unrotate_tile(sketch.rht(), in, out, std::sqrt(static_cast<float>(d)));
}

}  // namespace tq::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif
