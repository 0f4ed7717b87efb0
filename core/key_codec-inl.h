// Steps of the key codec on tiles (core/tile.h). Included once for every SIMD target.
#if defined(TQ_CORE_KEY_CODEC_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef TQ_CORE_KEY_CODEC_INL_H_
#undef TQ_CORE_KEY_CODEC_INL_H_
#else
#define TQ_CORE_KEY_CODEC_INL_H_
#endif

#include "core/rotation-inl.h"

HWY_BEFORE_NAMESPACE();
namespace tq::HWY_NAMESPACE {

struct QuantisedSums {
  FloatRow yc, cc;  // <y,c>, ||c||^2
};

// Packs the cell indices of a tile; writes the residual y - c when `residual` is not null.
template <int B>
HWY_NOINLINE QuantisedSums quantise_bits(const float* HWY_RESTRICT y, std::size_t d,
                                         const float* HWY_RESTRICT inner, const float* HWY_RESTRICT centroids,
                                         std::uint32_t* HWY_RESTRICT words, float* HWY_RESTRICT residual) {
  const CentroidTable<B> table(centroids);
  PackedWriter<B> writer(words);
  FloatRow yc[4] = {broadcast(0), broadcast(0), broadcast(0), broadcast(0)};
  FloatRow cc[4] = {broadcast(0), broadcast(0), broadcast(0), broadcast(0)};
  for (std::size_t j = 0; j < d; j += 4) {
    for (std::size_t k = 0; k < 4; ++k) {
      const FloatRow value = load(y + (j + k) * kTileRows);
      const UnsignedRow index = cell_index<B>(value, inner);
      const FloatRow c = table(index);
      writer.push(index);
      yc[k] = mul_add(value, c, yc[k]);
      cc[k] = mul_add(c, c, cc[k]);
      if (residual != nullptr) store(sub(value, c), residual + (j + k) * kTileRows);
    }
  }
  writer.finish();
  return {add(add(yc[0], yc[1]), add(yc[2], yc[3])), add(add(cc[0], cc[1]), add(cc[2], cc[3]))};
}

HWY_INLINE QuantisedSums quantise_tile(int bits, const float* y, std::size_t d, const float* inner,
                                       const float* centroids, std::uint32_t* words, float* residual) {
  return with_bits(bits, [&](auto b) HWY_ATTR {
    return quantise_bits<decltype(b)::value>(y, d, inner, centroids, words, residual);
  });
}

// Centroids of packed codes.
template <int B>
HWY_NOINLINE void centroids_of_bits(const std::uint32_t* HWY_RESTRICT words, std::size_t d,
                                    const float* HWY_RESTRICT centroids, float* HWY_RESTRICT tile) {
  const CentroidTable<B> table(centroids);
  PackedReader<B> reader(words);
  for (std::size_t j = 0; j < d; ++j) store(table(reader.next()), tile + j * kTileRows);
}

HWY_INLINE void centroid_tile(int bits, const std::uint32_t* words, std::size_t d, const float* centroids,
                              float* tile) {
  with_bits(bits, [&](auto b) HWY_ATTR { centroids_of_bits<decltype(b)::value>(words, d, centroids, tile); });
}

// One bit a coordinate: 1 where z > 0.
HWY_INLINE void pack_signs(const float* HWY_RESTRICT z, std::size_t d, std::uint32_t* HWY_RESTRICT words) {
  const float zero = 0;
  PackedWriter<1> writer(words);
  for (std::size_t j = 0; j < d; ++j) writer.push(cell_index<1>(load(z + j * kTileRows), &zero));
  writer.finish();
}

// +1 or -1 of packed sign bits.
HWY_INLINE void sign_tile(const std::uint32_t* HWY_RESTRICT words, std::size_t d, float* HWY_RESTRICT tile) {
  const float values[2] = {-1, 1};
  centroids_of_bits<1>(words, d, values, tile);
}

HWY_INLINE FloatRow load_halves(const std::uint16_t* HWY_RESTRICT halves, std::size_t rows) {
  HWY_ALIGN float values[kTileRows] = {};
  half_to_float(halves, values, rows);
  return load(values);
}
HWY_INLINE void store_halves(const FloatRow& row, std::size_t rows, std::uint16_t* HWY_RESTRICT halves) {
  HWY_ALIGN float values[kTileRows];
  store(row, values);
  for (std::size_t r = 0; r < rows; ++r) halves[r] = float_to_half_saturate(values[r]);
}

// out[q * stride + t] = sum over j of queries[q * d + j] tile[j][t], for the first `rows` vectors t of the
// tile; added to what is there when `accumulate`. `gain` multiplies vector t's sum.
HWY_INLINE void score_tile(const float* HWY_RESTRICT queries, std::size_t count,
                           const float* HWY_RESTRICT tile, std::size_t d, const FloatRow& gain,
                           bool accumulate, std::size_t rows, std::size_t stride, float* HWY_RESTRICT out) {
  constexpr std::size_t kQueries = kVectors == 1 ? 8 : 4;  // as many sums as the registers hold
  HWY_ALIGN float result[kTileRows];
  const auto finish = [&](const FloatRow& sum, std::size_t q) HWY_ATTR {
    const FloatRow scores = mul(sum, gain);
    float* HWY_RESTRICT to = out + q * stride;
    if (rows == kTileRows) {
      for (std::size_t v = 0; v < kVectors; ++v) {
        auto score = scores.v[v];
        if (accumulate) score = hn::Add(hn::LoadU(Float(), to + v * kLanes), score);
        hn::StoreU(score, Float(), to + v * kLanes);
      }
      return;
    }
    store(scores, result);
    if (accumulate) {
      for (std::size_t r = 0; r < rows; ++r) to[r] += result[r];
    } else {
      for (std::size_t r = 0; r < rows; ++r) to[r] = result[r];
    }
  };
  std::size_t q = 0;
  for (; q + kQueries <= count; q += kQueries) {
    FloatRow sum[kQueries];
    for (std::size_t k = 0; k < kQueries; ++k) sum[k] = broadcast(0);
    const float* HWY_RESTRICT query = queries + q * d;
    for (std::size_t j = 0; j < d; ++j) {
      const FloatRow x = load(tile + j * kTileRows);
      for (std::size_t k = 0; k < kQueries; ++k) sum[k] = mul_add(broadcast(query[k * d + j]), x, sum[k]);
    }
    for (std::size_t k = 0; k < kQueries; ++k) finish(sum[k], q + k);
  }
  for (; q < count; ++q) {
    FloatRow sum = broadcast(0);
    for (std::size_t j = 0; j < d; ++j) {
      sum = mul_add(broadcast(queries[q * d + j]), load(tile + j * kTileRows), sum);
    }
    finish(sum, q);
  }
}

}  // namespace tq::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif
