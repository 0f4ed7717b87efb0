#include "core/attention.h"

#include <algorithm>
#include <cmath>

#include "core/half.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "core/attention.cpp"
#include <hwy/foreach_target.h>

#include "core/key_codec-inl.h"

HWY_BEFORE_NAMESPACE();
namespace tq::HWY_NAMESPACE {

void dense_score_block(const float* queries, std::size_t count, const float* keys, std::size_t rows,
                       std::size_t d, std::size_t stride, float* out) {
  const TileBuffer tile = make_tile(d);
  for (std::size_t r = 0; r < rows; r += kTileRows) {
    const std::size_t in_tile = HWY_MIN(kTileRows, rows - r);
    load_tile(keys + r * d, in_tile, d, tile.get());
    score_tile(queries, count, tile.get(), d, broadcast(1), false, in_tile, stride, out + r);
  }
}

void error_product_block(const float* x, const float* reconstruction, std::size_t rows, std::size_t d,
                         ErrorProducts* out) {
  const TileBuffer a = make_tile(d), b = make_tile(d);
  HWY_ALIGN float column[kTileRows];
  for (std::size_t r = 0; r < rows; r += kTileRows) {
    const std::size_t count = HWY_MIN(kTileRows, rows - r);
    const auto put = [&](float ErrorProducts::*field, const FloatRow& row) HWY_ATTR {
      store(row, column);
      for (std::size_t k = 0; k < count; ++k) out[r + k].*field = column[k];
    };
    load_tile(x + r * d, count, d, a.get());
    load_tile(reconstruction + r * d, count, d, b.get());
    put(&ErrorProducts::xx, dot(a.get(), a.get(), d));
    put(&ErrorProducts::xr, dot(a.get(), b.get(), d));
    put(&ErrorProducts::rr, dot(b.get(), b.get(), d));
    for (std::size_t j = 0; j < d; ++j) {
      float* value = a.get() + j * kTileRows;
      store(sub(load(value), load(b.get() + j * kTileRows)), value);
    }
    put(&ErrorProducts::dd, dot(a.get(), a.get(), d));
  }
}

// One vector lane a coordinate; eight queries share every load of a value.
void weighted_rows(const float* weights, std::size_t count, std::size_t stride, const float* values,
                   std::size_t rows, std::size_t d, float* out) {
  const hn::CappedTag<float, 4> four;  // d is a multiple of 4 at least
  const auto run = [&](auto tag, std::size_t j, std::size_t q, auto queries) HWY_ATTR {
    constexpr std::size_t kQueries = decltype(queries)::value;
    hn::Vec<decltype(tag)> sum[kQueries];
    for (std::size_t k = 0; k < kQueries; ++k) sum[k] = hn::LoadU(tag, out + (q + k) * d + j);
    for (std::size_t t = 0; t < rows; ++t) {
      const auto value = hn::LoadU(tag, values + t * d + j);
      for (std::size_t k = 0; k < kQueries; ++k) {
        sum[k] = hn::Add(sum[k], hn::Mul(hn::Set(tag, weights[(q + k) * stride + t]), value));
      }
    }
    for (std::size_t k = 0; k < kQueries; ++k) hn::StoreU(sum[k], tag, out + (q + k) * d + j);
  };
  const auto all_queries = [&](auto tag, std::size_t j) HWY_ATTR {
    std::size_t q = 0;
    for (; q + 8 <= count; q += 8) run(tag, j, q, std::integral_constant<std::size_t, 8>());
    for (; q < count; ++q) run(tag, j, q, std::integral_constant<std::size_t, 1>());
  };
  std::size_t j = 0;
  for (; j + kLanes <= d; j += kLanes) all_queries(Float(), j);
  for (; j + 4 <= d; j += 4) all_queries(four, j);
}

// exp(x) for x <= 0 to 2 ulp; 0 below -87. Range reduction and a polynomial with plain multiplications and
// additions, so that every target rounds alike.
HWY_INLINE hn::Vec<Float> exp_nonpositive(hn::Vec<Float> x) {
  const Float f;
  const auto in_range = hn::Ge(x, hn::Set(f, -87.0f));
  x = hn::Max(x, hn::Set(f, -87.0f));
  const auto n = hn::Round(hn::Mul(x, hn::Set(f, 1.44269504f)));
  auto r = hn::Sub(x, hn::Mul(n, hn::Set(f, 0.693359375f)));
  r = hn::Sub(r, hn::Mul(n, hn::Set(f, -2.12194440e-4f)));
  auto p = hn::Set(f, 1.0f / 5040);
  for (const float c : {1.0f / 720, 1.0f / 120, 1.0f / 24, 1.0f / 6, 0.5f, 1.0f, 1.0f}) {
    p = hn::Add(hn::Mul(p, r), hn::Set(f, c));
  }
  const auto power = hn::BitCast(f, hn::ShiftLeft<23>(hn::Add(hn::ConvertTo(Int(), n), hn::Set(Int(), 127))));
  return hn::IfThenElseZero(in_range, hn::Mul(p, power));
}

HWY_INLINE float sum_lanes(const FloatRow& row) {
  HWY_ALIGN float values[kTileRows];
  store(row, values);
  float sum = 0;
  for (const float value : values) sum += value;
  return sum;
}

HWY_INLINE FloatRow load_unaligned(const float* HWY_RESTRICT p) {
  FloatRow r;
  for (std::size_t v = 0; v < kVectors; ++v) r.v[v] = hn::LoadU(Float(), p + v * kLanes);
  return r;
}

// Calls step(offset, p) for whole groups of 16 floats in place, then once for what is left, padded with
// `padding`.
template <typename Step>
HWY_INLINE void for_each_group(float* HWY_RESTRICT row, std::size_t count, float padding, const Step& step) {
  std::size_t i = 0;
  for (; i + kTileRows <= count; i += kTileRows) step(row + i);
  if (i == count) return;
  HWY_ALIGN float rest[kTileRows];
  std::fill_n(rest, kTileRows, padding);
  std::copy_n(row + i, count - i, rest);
  step(rest);
  std::copy_n(rest, count - i, row + i);
}

float largest_of(const float* scores, std::size_t count) {
  FloatRow most = broadcast(kMaskedScore);
  std::size_t i = 0;
  for (; i + kTileRows <= count; i += kTileRows) {
    const FloatRow group = load_unaligned(scores + i);
    for (std::size_t v = 0; v < kVectors; ++v) most.v[v] = hn::Max(most.v[v], group.v[v]);
  }
  HWY_ALIGN float lanes[kTileRows];
  store(most, lanes);
  float largest = *std::max_element(lanes, lanes + kTileRows);
  for (; i < count; ++i) largest = HWY_MAX(largest, scores[i]);
  return largest;
}

// Of the first score that equals `value`; `count` where none does.
std::size_t index_of(const float* scores, std::size_t count, float value) {
  const Float f;
  std::size_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    const auto equal = hn::Eq(hn::LoadU(f, scores + i), hn::Set(f, value));
    if (!hn::AllFalse(f, equal)) break;
  }
  while (i < count && scores[i] != value) ++i;
  return i;
}

bool scale_score_row(float* scores, std::size_t count, float scale) {
  const Float f;
  auto usable = hn::Eq(hn::Zero(f), hn::Zero(f));
  std::size_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    const auto scaled = hn::Mul(hn::LoadU(f, scores + i), hn::Set(f, scale));
    hn::StoreU(scaled, f, scores + i);
    usable = hn::And(usable, hn::Lt(hn::Abs(scaled), hn::Set(f, -kMaskedScore)));
  }
  bool all = hn::AllTrue(f, usable);
  for (; i < count; ++i) {
    scores[i] *= scale;
    all &= std::fabs(scores[i]) < -kMaskedScore;
  }
  return all;
}

// Overwrites scores by exp(score - max); returns their sum.
float exponentiate(float* scores, std::size_t count, float max) {
  FloatRow sum = broadcast(0);
  for_each_group(scores, count, kMaskedScore, [&](float* HWY_RESTRICT group) HWY_ATTR {
    FloatRow weight = load_unaligned(group);
    for (std::size_t v = 0; v < kVectors; ++v) {
      weight.v[v] = exp_nonpositive(hn::Sub(weight.v[v], hn::Set(Float(), max)));
      hn::StoreU(weight.v[v], Float(), group + v * kLanes);
    }
    sum = add(sum, weight);
  });
  return sum_lanes(sum);
}

void score_product_row(const float* weights, const float* a, const float* b, std::size_t count,
                       ScoreProducts* out) {
  FloatRow weighted = broadcast(0), aa = broadcast(0), ab = broadcast(0), dd = broadcast(0);
  const auto add_group = [&](const float* w_group, const float* a_group, const float* b_group) HWY_ATTR {
    const FloatRow w = load_unaligned(w_group);
    FloatRow x = load_unaligned(a_group), y = load_unaligned(b_group);
    for (std::size_t v = 0; v < kVectors; ++v) {
      const auto visible = hn::Gt(x.v[v], hn::Set(Float(), kMaskedScore));
      x.v[v] = hn::IfThenElseZero(visible, x.v[v]);
      y.v[v] = hn::IfThenElseZero(visible, y.v[v]);
    }
    const FloatRow difference = sub(x, y);
    weighted = mul_add(w, difference, weighted);
    aa = mul_add(x, x, aa);
    ab = mul_add(x, y, ab);
    dd = mul_add(difference, difference, dd);
  };
  std::size_t i = 0;
  for (; i + kTileRows <= count; i += kTileRows) add_group(weights + i, a + i, b + i);
  if (i < count) {
    HWY_ALIGN float w[kTileRows] = {}, x[kTileRows], y[kTileRows] = {};
    std::fill_n(x, kTileRows, kMaskedScore);
    std::copy_n(weights + i, count - i, w);
    std::copy_n(a + i, count - i, x);
    std::copy_n(b + i, count - i, y);
    add_group(w, x, y);
  }
  *out = {static_cast<double>(sum_lanes(weighted)), static_cast<double>(sum_lanes(aa)),
          static_cast<double>(sum_lanes(ab)), static_cast<double>(sum_lanes(dd))};
}

}  // namespace tq::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include <algorithm>
#include <cmath>

namespace tq {
namespace {
HWY_EXPORT(dense_score_block);
HWY_EXPORT(weighted_rows);
HWY_EXPORT(error_product_block);
HWY_EXPORT(exponentiate);
HWY_EXPORT(largest_of);
HWY_EXPORT(index_of);
HWY_EXPORT(scale_score_row);
HWY_EXPORT(score_product_row);
}  // namespace

void dense_scores(const float* queries, std::size_t count, const float* keys, std::size_t rows, std::size_t d,
                  float* out) {
  parallel_blocks(rows, [&](std::size_t begin, std::size_t end) {
    HWY_DYNAMIC_DISPATCH(dense_score_block)
    (queries, count, keys + begin * d, end - begin, d, rows, out + begin);
  });
}

void accumulate_weighted_rows(const float* weights, std::size_t count, std::size_t stride,
                              const float* values, std::size_t rows, std::size_t d, float* out) {
  HWY_DYNAMIC_DISPATCH(weighted_rows)(weights, count, stride, values, rows, d, out);
}

void error_products(const float* x, const float* reconstruction, std::size_t rows, std::size_t d,
                    ErrorProducts* out) {
  parallel_blocks(rows, [&](std::size_t begin, std::size_t end) {
    HWY_DYNAMIC_DISPATCH(error_product_block)
    (x + begin * d, reconstruction + begin * d, end - begin, d, out + begin);
  });
}

bool scale_scores(float* scores, std::size_t count, float scale) {
  return HWY_DYNAMIC_DISPATCH(scale_score_row)(scores, count, scale);
}

void SoftmaxStream::raise(float block_max, std::size_t top) {
  rescale_ = 1;
  if (!(block_max > max_)) return;
  rescale_ = static_cast<float>(std::exp(static_cast<double>(max_) - static_cast<double>(block_max)));
  max_ = block_max;
  top_ = top;
  sum_ *= static_cast<double>(rescale_);
}

SoftmaxStream::Block SoftmaxStream::add(float* scores, std::size_t count, std::size_t first) {
  Block block;
  const float largest = HWY_DYNAMIC_DISPATCH(largest_of)(scores, count);
  if (!(largest > kMaskedScore)) {
    rescale_ = 1;
    std::fill_n(scores, count, 0.0f);
    return block;
  }
  block.max = largest;
  block.top = first + HWY_DYNAMIC_DISPATCH(index_of)(scores, count, largest);
  raise(block.max, block.top);
  block.reference = max_;
  block.sum = static_cast<double>(HWY_DYNAMIC_DISPATCH(exponentiate)(scores, count, max_));
  sum_ += block.sum;
  return block;
}

float SoftmaxStream::add(const Block& block) {
  rescale_ = 1;
  if (!(block.max > kMaskedScore)) return 1;
  raise(block.max, block.top);
  const double factor = std::exp(static_cast<double>(block.reference) - static_cast<double>(max_));
  sum_ += factor * block.sum;
  return static_cast<float>(factor);
}

bool SoftmaxStream::can_add(const Block& block) const {
  // exp(-87) is float32's smallest normal number; tokens 40 nats under the block's largest do not count.
  constexpr float kFarthest = 40;
  return !(block.max > kMaskedScore && block.reference - std::max(max_, block.max) > kFarthest);
}

double SoftmaxStream::log_sum_exp() const { return static_cast<double>(max_) + std::log(sum_); }

ScoreProducts score_products(const float* weights, const float* a, const float* b, std::size_t count) {
  ScoreProducts products;
  HWY_DYNAMIC_DISPATCH(score_product_row)(weights, a, b, count, &products);
  return products;
}

}  // namespace tq
#endif
