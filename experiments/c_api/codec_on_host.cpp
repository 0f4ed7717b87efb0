#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "core/error.h"
#include "experiments/c_api/handles.h"
#include "experiments/c_api/last_error.h"

// Codecs over arrays in host memory: a head at a time, with core's parallel loops over its rows.
namespace tq::c_api {
namespace {

std::size_t index(int size) { return static_cast<std::size_t>(size); }

// One head's part of the caller's arrays.
class HeadRows {
 public:
  HeadRows(const tq_codec_info& info, const tq_rows& all, std::size_t head, std::size_t rows)
      : info_(info), all_(all), head_(head), rows_(rows) {}

  template <typename Array>
  void load(const Array* from, int row_size, std::vector<Array>& to) const {
    const std::size_t size = rows_ * index(row_size);
    to.resize(size);
    if (size > 0) std::copy_n(from + head_ * size, size, to.data());
  }
  template <typename Array>
  void store(const std::vector<Array>& from, int row_size, Array* to) const {
    if (!from.empty()) std::copy(from.begin(), from.end(), to + head_ * rows_ * index(row_size));
  }

  EncodedKeys keys() const {
    EncodedKeys result;
    result.rows = rows_;
    load(all_.codes, info_.code_bytes, result.codes);
    load(all_.scales, info_.scales, result.scales);
    load(all_.signs, info_.sign_bytes, result.signs);
    load(all_.residual_norms, info_.residual_norms, result.residual_norms);
    return result;
  }
  EncodedValues values() const {
    if (info_.zeros == 0) return keys();
    EncodedGroups result;
    result.rows = rows_;
    load(all_.codes, info_.code_bytes, result.codes);
    load(all_.zeros, info_.zeros, result.zeros);
    load(all_.scales, info_.scales, result.scales);
    return result;
  }
  void store(const EncodedKeys& keys) const {
    store(keys.codes, info_.code_bytes, all_.codes);
    store(keys.scales, info_.scales, all_.scales);
    store(keys.signs, info_.sign_bytes, all_.signs);
    store(keys.residual_norms, info_.residual_norms, all_.residual_norms);
  }
  void store(const EncodedGroups& values) const {
    store(values.codes, info_.code_bytes, all_.codes);
    store(values.zeros, info_.zeros, all_.zeros);
    store(values.scales, info_.scales, all_.scales);
  }

 private:
  const tq_codec_info& info_;
  const tq_rows& all_;
  std::size_t head_, rows_;
};

// So that no product of sizes overflows: a vector has at most 4096 bytes.
void check_count(std::size_t heads, std::size_t rows) {
  constexpr std::size_t kMost = std::size_t{1} << 48;
  if (heads > kMost || (heads > 0 && rows > kMost / heads)) {
    throw UsageError("{} heads of {} rows are more than memory can hold", heads, rows);
  }
}

template <typename Codec>
const Codec& of_head(const std::vector<std::shared_ptr<const Codec>>& codecs, std::size_t head) {
  return *codecs[codecs.size() == 1 ? 0 : head];
}

void check_queries(const float* q, std::size_t q_heads, std::size_t heads) {
  if (q_heads > 0) require(q, "q");
  if (heads == 0 || q_heads % heads != 0) {
    throw UsageError("{} query heads for {} KV heads: not a multiple", q_heads, heads);
  }
}

void check_side(const tq_codec& codec, bool keys, const char* what) {
  if (codec.is_keys() != keys) {
    throw UsageError("{} takes a codec of {}, and was given one of {}", what, keys ? "keys" : "values",
                     keys ? "values" : "keys");
  }
}

// Scaled scores to softmax weights, in place. Returns the log-sum-exp; all weights are NaN where a score is.
float softmax(float* scores, std::size_t count, float scale) {
  float most = -std::numeric_limits<float>::infinity();
  for (std::size_t t = 0; t < count; ++t) {
    scores[t] *= scale;
    most = std::isnan(scores[t]) ? scores[t] : std::max(most, scores[t]);
    if (std::isnan(most)) break;
  }
  if (!std::isfinite(most)) {
    const float result = count == 0 ? most : std::numeric_limits<float>::quiet_NaN();
    std::fill_n(scores, count, std::numeric_limits<float>::quiet_NaN());
    return result;
  }
  double sum = 0;
  for (std::size_t t = 0; t < count; ++t) {
    scores[t] = std::exp(scores[t] - most);
    sum += static_cast<double>(scores[t]);
  }
  const float factor = static_cast<float>(1 / sum);
  for (std::size_t t = 0; t < count; ++t) scores[t] *= factor;
  return static_cast<float>(static_cast<double>(most) + std::log(sum));
}

}  // namespace
}  // namespace tq::c_api

using namespace tq::c_api;

int tq_encode(const tq_codec* handle, const float* x, size_t heads, size_t rows, const tq_rows* encoded) {
  return guarded([&] {
    const tq_codec& codec = checked(handle, heads);
    check_count(heads, rows);
    if (heads == 0 || rows == 0) return;
    require(x, "x");
    const tq_rows& out = checked(codec, encoded);
    const tq_codec_info info = describe(codec);
    for (std::size_t head = 0; head < heads; ++head) {
      const float* from = x + head * rows * static_cast<std::size_t>(info.head_dim);
      const HeadRows part(info, out, head, rows);
      if (codec.is_keys()) {
        tq::EncodedKeys made;
        of_head(codec.keys, head).encode(from, rows, made);
        part.store(made);
      } else {
        tq::EncodedValues made;
        of_head(codec.values, head).encode(from, rows, made);
        std::visit([&](const auto& arrays) { part.store(arrays); }, made);
      }
    }
  });
}

int tq_decode(const tq_codec* handle, const tq_rows* encoded, size_t heads, size_t rows, float* out) {
  return guarded([&] {
    const tq_codec& codec = checked(handle, heads);
    check_count(heads, rows);
    if (heads == 0 || rows == 0) return;
    require(out, "out");
    const tq_rows& in = checked(codec, encoded);
    const tq_codec_info info = describe(codec);
    for (std::size_t head = 0; head < heads; ++head) {
      float* to = out + head * rows * static_cast<std::size_t>(info.head_dim);
      const HeadRows part(info, in, head, rows);
      if (codec.is_keys()) {
        of_head(codec.keys, head).decode(part.keys(), to);
      } else {
        of_head(codec.values, head).decode(part.values(), to);
      }
    }
  });
}

int tq_scores(const tq_codec* handle, const tq_rows* encoded, size_t heads, size_t rows, const float* q,
              size_t q_heads, float* out) {
  return guarded([&] {
    const tq_codec& codec = checked(handle, heads);
    check_side(codec, true, "tq_scores");
    check_count(heads, rows);
    check_queries(q, q_heads, heads);
    if (q_heads == 0 || rows == 0) return;
    require(out, "out");
    const tq_rows& in = checked(codec, encoded);
    const tq_codec_info info = describe(codec);
    const std::size_t group = q_heads / heads, d = static_cast<std::size_t>(info.head_dim);
    for (std::size_t head = 0; head < heads; ++head) {
      const tq::KeyCodec& keys = of_head(codec.keys, head);
      keys.scores(keys.prepare(q + head * group * d, group), HeadRows(info, in, head, rows).keys(),
                  out + head * group * rows);
    }
  });
}

int tq_attend(const tq_codec* key_handle, const tq_rows* encoded_keys, const tq_codec* value_handle,
              const tq_rows* encoded_values, size_t heads, size_t rows, const float* q, size_t q_heads,
              float softmax_scale, float* out, float* lse) {
  return guarded([&] {
    const tq_codec &keys = checked(key_handle, heads), &values = checked(value_handle, heads);
    check_side(keys, true, "tq_attend");
    check_side(values, false, "tq_attend");
    if (keys.head_dim() != values.head_dim()) {
      throw tq::UsageError("keys have head_dim {} and values {}", keys.head_dim(), values.head_dim());
    }
    check_count(heads, rows);
    check_queries(q, q_heads, heads);
    if (q_heads == 0) return;
    require(out, "out");
    const std::size_t group = q_heads / heads, d = static_cast<std::size_t>(keys.head_dim());
    if (rows == 0) {
      std::fill_n(out, q_heads * d, 0.0f);
      if (lse != nullptr) std::fill_n(lse, q_heads, -std::numeric_limits<float>::infinity());
      return;
    }
    const tq_rows &key_rows = checked(keys, encoded_keys), &value_rows = checked(values, encoded_values);
    const tq_codec_info key_info = describe(keys), value_info = describe(values);
    std::vector<float> weights(group * rows);
    for (std::size_t head = 0; head < heads; ++head) {
      const tq::KeyCodec& codec = of_head(keys.keys, head);
      codec.scores(codec.prepare(q + head * group * d, group),
                   HeadRows(key_info, key_rows, head, rows).keys(), weights.data());
      for (std::size_t i = 0; i < group; ++i) {
        const float sum = softmax(&weights[i * rows], rows, softmax_scale);
        if (lse != nullptr) lse[head * group + i] = sum;
      }
      of_head(values.values, head)
          .weighted_sum(weights.data(), group, HeadRows(value_info, value_rows, head, rows).values(),
                        out + head * group * d);
    }
  });
}
