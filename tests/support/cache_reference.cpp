#include "tests/support/cache_reference.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace tq::reference {
namespace {

Vector as_half(const float* x, std::size_t d) {
  Vector result;
  for (std::size_t j = 0; j < d; ++j)
    result.push_back(from_half(to_half(std::clamp(static_cast<double>(x[j]), -65504.0, 65504.0))));
  return result;
}

std::vector<float> narrow(const Vector& x) { return {x.begin(), x.end()}; }

Vector decode_key(const KeyCodec& codec, const EncodedKeys& row, const Matrix& rotation,
                  const Matrix& sketch) {
  const std::size_t d = rotation.order;
  const std::vector<int> codes = unpack(row.codes, d, codec.config().table_bits());
  const double scale = from_half(row.scales[0]);
  if (codec.config().mode == KeyMode::mse) {
    return decode_mse(rotation, codec.tables().codebook, codes, scale);
  }
  std::vector<int> signs = unpack(row.signs, d, 1);
  for (int& sign : signs) sign = 2 * sign - 1;
  return decode_prod(rotation, sketch, codec.tables().codebook, codes, scale, signs,
                     from_half(row.residual_norms[0]), codec.tables().qjl_scale);
}

Vector decode_value(const ValueCodec& codec, const EncodedValues& values, const Matrix& rotation) {
  if (const auto* row = std::get_if<EncodedKeys>(&values)) {
    const std::vector<int> codes = unpack(row->codes, rotation.order, codec.config().bits);
    return decode_mse(rotation, codec.rotated()->tables().codebook, codes, from_half(row->scales[0]));
  }
  const auto& row = std::get<EncodedGroups>(values);
  const auto size = static_cast<std::size_t>(codec.config().group_size);
  const std::vector<int> codes =
      unpack(row.codes, static_cast<std::size_t>(codec.head_dim()), codec.config().bits);
  Vector x;
  for (std::size_t j = 0; j < codes.size(); ++j)
    x.push_back(from_half(row.zeros[j / size]) + codes[j] * from_half(row.scales[j / size]));
  return x;
}

}  // namespace

SlowCache::SlowCache(const CacheLayer& layer, const CachePolicy& policy) : layer_(layer), policy_(policy) {
  for (int head = 0; !layer.exact() && head < layer.num_kv_heads; ++head) {
    const KeyCodec& key = layer.key_codec(head);
    const ValueCodec& value = layer.value_codec(head);
    key_rotations_.push_back(dense(key.rotation()));
    sketches_.push_back(key.config().mode == KeyMode::prod ? dense(*key.sketch()) : Matrix(0));
    value_rotations_.push_back(value.rotated() != nullptr ? dense(value.rotated()->rotation()) : Matrix(0));
  }
}

void SlowCache::append(const float* k, const float* v) {
  const auto d = static_cast<std::size_t>(layer_.head_dim);
  Token token;
  for (int head = 0; head < layer_.num_kv_heads; ++head, k += d, v += d)
    token.heads.push_back({{}, {}, as_half(k, d), as_half(v, d)});
  tokens_.push_back(token);
  if (layer_.exact() || sinks_ < static_cast<std::size_t>(policy_.sinks)) {
    ++sinks_;
    return;
  }
  window_.push_back(tokens_.size() - 1);
  if (window_.size() < static_cast<std::size_t>(policy_.recent + policy_.flush_block)) return;
  for (int i = 0; i < policy_.flush_block; ++i) {
    quantise(tokens_[window_.front()]);
    quantised_.push_back(window_.front());
    window_.pop_front();
  }
}

void SlowCache::quantise(Token& token) {
  token.quantised = true;
  for (std::size_t head = 0; head < token.heads.size(); ++head) {
    Row& row = token.heads[head];
    const KeyCodec& key = layer_.key_codec(static_cast<int>(head));
    const ValueCodec& value = layer_.value_codec(static_cast<int>(head));
    key.encode(narrow(row.key).data(), 1, row.key_codes);
    value.encode(narrow(row.value).data(), 1, row.value_codes);
    row.key = decode_key(key, row.key_codes, key_rotations_[head], sketches_[head]);
    row.value = decode_value(value, row.value_codes, value_rotations_[head]);
  }
}

std::vector<std::size_t> SlowCache::quantised() const { return quantised_; }

SlowCache::Attention SlowCache::attend(int kv_head, std::span<const float> q, double softmax_scale) const {
  const auto head = static_cast<std::size_t>(kv_head);
  const Vector query = widen(q);
  Attention result;
  Vector scaled;
  for (const Token& token : tokens_) {
    result.scores.push_back(dot(query, token.heads[head].key));
    scaled.push_back(softmax_scale * result.scores.back());
  }
  const Vector weights = softmax(scaled);
  result.out.assign(query.size(), 0);
  for (std::size_t t = 0; t < tokens_.size(); ++t) {
    for (std::size_t j = 0; j < query.size(); ++j)
      result.out[j] += weights[t] * tokens_[t].heads[head].value[j];
  }
  const double largest = *std::max_element(scaled.begin(), scaled.end());
  double sum = 0;
  for (const double score : scaled) sum += std::exp(score - largest);
  result.lse = largest + std::log(sum);
  return result;
}

}  // namespace tq::reference
