#include "experiments/sweep/fused_reference.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>

namespace tq {
namespace {

// Tokens x d of one KV head.
struct Decoded {
  std::vector<float> k, v;
};

Decoded decode_head(const KvCache& cache, int head) {
  const CacheLayer& layer = cache.layer(0);
  const TokenStore& store = cache.store(0, 0);
  const std::size_t d = static_cast<std::size_t>(layer.head_dim);
  const ValueCodec& values = layer.value_codec(head);
  Decoded decoded{std::vector<float>(store.tokens() * d), std::vector<float>(store.tokens() * d)};
  for (std::size_t page = 0; page < store.pages(); ++page) {
    const std::size_t at = page * kPageTokens * d, rows = store.page_rows(page);
    const ConstValueBlock block = store.values(page, head);
    layer.key_codec(head).decode_block(store.keys(page, head), rows, false, decoded.k.data() + at);
    if (const KeyCodec* rotated = values.rotated()) {
      rotated->decode_block(std::get<ConstKeyBlock>(block), rows, false, decoded.v.data() + at);
    } else {
      values.decode_block(block, rows, decoded.v.data() + at);
    }
  }
  return decoded;
}

struct HeadAttention {
  std::vector<double> out;
  double lse;
};

HeadAttention attend(const Decoded& head, const float* query, std::size_t d, double softmax_scale) {
  const std::size_t tokens = head.k.size() / d;
  std::vector<double> scores(tokens, 0.0);
  for (std::size_t t = 0; t < tokens; ++t) {
    for (std::size_t j = 0; j < d; ++j) {
      scores[t] += static_cast<double>(query[j]) * static_cast<double>(head.k[t * d + j]);
    }
    scores[t] *= softmax_scale;
  }
  const double largest = *std::max_element(scores.begin(), scores.end());
  HeadAttention attention{std::vector<double>(d, 0.0), 0};
  double sum = 0;
  for (std::size_t t = 0; t < tokens; ++t) {
    const double weight = std::exp(scores[t] - largest);
    sum += weight;
    for (std::size_t j = 0; j < d; ++j) {
      attention.out[j] += weight * static_cast<double>(head.v[t * d + j]);
    }
  }
  for (double& x : attention.out) x /= sum;
  attention.lse = largest + std::log(sum);
  return attention;
}

// Written so that a NaN stays.
void keep_larger(double& worst, double value) {
  if (!(value <= worst)) worst = value;
}
void keep_smaller(double& worst, double value) {
  if (!(value >= worst)) worst = value;
}

}  // namespace

FusedReport compare_with_float64(const KvCache& cache, const std::vector<float>& q, float softmax_scale,
                                 const std::vector<float>& out, const std::vector<float>& lse) {
  const std::size_t d = static_cast<std::size_t>(cache.layer(0).head_dim);
  const std::size_t kv_heads = static_cast<std::size_t>(cache.layer(0).num_kv_heads);
  const std::size_t group = lse.size() / kv_heads;
  FusedReport report;
  for (std::size_t kv_head = 0; kv_head < kv_heads; ++kv_head) {
    const Decoded decoded = decode_head(cache, static_cast<int>(kv_head));
    for (std::size_t h = kv_head * group; h < (kv_head + 1) * group; ++h) {
      const HeadAttention reference =
          attend(decoded, q.data() + h * d, d, static_cast<double>(softmax_scale));
      double xx = 0, xr = 0, rr = 0, dd = 0;
      for (std::size_t j = 0; j < d; ++j) {
        const double x = static_cast<double>(out[h * d + j]), r = reference.out[j];
        xx += x * x;
        xr += x * r;
        rr += r * r;
        dd += (x - r) * (x - r);
        keep_larger(report.max_error, std::abs(x - r));
      }
      keep_larger(report.relative_error, std::sqrt(dd / rr));
      keep_smaller(report.cosine, xr / std::sqrt(xx * rr));
      keep_larger(report.lse_error, std::abs(static_cast<double>(lse[h]) - reference.lse));
    }
  }
  return report;
}

}  // namespace tq
