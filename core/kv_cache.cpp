#include "core/kv_cache.h"

#include <algorithm>
#include <stdexcept>

#include "core/attention.h"
#include "core/error.h"
#include "core/head_attention.h"
#include "core/tile.h"

namespace tq {
namespace {

using Part = TokenStore::Part;
using Side = TokenStore::Side;

void check_index(const char* what, int index, int count) {
  if (index < 0 || index >= count)
    throw std::out_of_range(fmt::format("KV cache: {} {} of {}", what, index, count));
}

// Calls step(begin, rows) for the pages' worth of tokens that `count` exact tokens make up.
template <typename Step>
void for_each_chunk(std::size_t count, const Step& step) {
  for (std::size_t begin = 0; begin < count; begin += kPageTokens)
    step(begin, std::min(kPageTokens, count - begin));
}

// The query heads of one KV head.
struct HeadQueries {
  const float* q;  // count x d
  std::size_t count;
};

// Scores of all tokens, in the order of the sequence: out[q * stride + t].
void score_head(const TokenStore& store, const CacheLayer& layer, int head, const HeadQueries& queries,
                std::size_t stride, float* out) {
  const auto d = static_cast<std::size_t>(layer.head_dim);
  const TokenCounts held = store.counts();
  std::vector<float> keys(kPageTokens * d), block(queries.count * kPageTokens);
  const auto exact = [&](Part part, std::size_t count) {
    for_each_chunk(count, [&](std::size_t begin, std::size_t rows) {
      store.read_exact(part, Side::keys, head, begin, rows, keys.data());
      dense_scores(queries.q, queries.count, keys.data(), rows, d, block.data());
      for (std::size_t i = 0; i < queries.count; ++i) std::copy_n(&block[i * rows], rows, out + i * stride);
      out += rows;
    });
  };
  exact(Part::sinks, held.sinks);
  if (held.quantised > 0) {
    const KeyCodec& codec = layer.key_codec(head);
    const PreparedQueries prepared = codec.prepare(queries.q, queries.count);
    for (std::size_t page = 0; page < store.pages(); ++page) {
      codec.score_block(prepared, store.keys(page, head), store.page_rows(page), stride, out);
      out += store.page_rows(page);
    }
  }
  exact(Part::window, held.window);
}

// One query of each of the KV head's query heads over all tokens.
HeadAttention attention_over_all(const TokenStore& store, const CacheLayer& layer, int head,
                                 const HeadQueries& queries, float softmax_scale) {
  const auto d = static_cast<std::size_t>(layer.head_dim);
  const TokenCounts held = store.counts();
  HeadAttention attention(queries.q, queries.count, d, softmax_scale);
  std::vector<float> keys(kPageTokens * d), values(kPageTokens * d);
  const auto exact = [&](Part part, std::size_t count) {
    for_each_chunk(count, [&](std::size_t begin, std::size_t rows) {
      store.read_exact(part, Side::keys, head, begin, rows, keys.data());
      store.read_exact(part, Side::values, head, begin, rows, values.data());
      attention.add_rows(keys.data(), values.data(), rows);
    });
  };
  exact(Part::sinks, held.sinks);
  if (held.quantised > 0) {
    const KeyCodec& codec = layer.key_codec(head);
    const PreparedQueries prepared = codec.prepare(queries.q, queries.count);
    for (std::size_t page = 0; page < store.pages(); ++page) {
      attention.add_codes(codec, prepared, store.keys(page, head), layer.value_codec(head),
                          store.values(page, head), store.page_rows(page));
    }
  }
  exact(Part::window, held.window);
  return attention;
}

}  // namespace

KvCache::KvCache(std::vector<CacheLayer> layers, CachePolicy policy, int batch)
    : layers_(std::move(layers)), policy_(policy), batch_(batch) {
  if (layers_.empty()) throw UsageError("KV cache: no layers");
  if (batch_ < 1) throw UsageError("KV cache: batch is {}, must be at least 1", batch_);
  tq::validate(policy_);
  for (const CacheLayer& layer : layers_) {
    tq::validate(layer);
    for (int sequence = 0; sequence < batch_; ++sequence) stores_.emplace_back(layer, policy_);
  }
}

const CacheLayer& KvCache::layer(int layer) const {
  check_index("layer", layer, layers());
  return layers_[static_cast<std::size_t>(layer)];
}

std::size_t KvCache::index(int layer, int sequence) const {
  check_index("layer", layer, layers());
  check_index("sequence", sequence, batch_);
  return static_cast<std::size_t>(layer) * static_cast<std::size_t>(batch_) +
         static_cast<std::size_t>(sequence);
}

void KvCache::prefill(int layer, int sequence, const float* k, const float* v, std::size_t tokens) {
  if (const std::size_t held = store(layer, sequence).tokens(); held != 0) {
    throw UsageError("KV cache: prefill of layer {}, sequence {}, which holds {} tokens", layer, sequence,
                     held);
  }
  append(layer, sequence, k, v, tokens);
}

void KvCache::append(int layer, int sequence, const float* k, const float* v, std::size_t tokens) {
  stores_[index(layer, sequence)].append(k, v, tokens);
}

std::size_t KvCache::group_size(int layer, int q_heads) const {
  const int kv_heads = this->layer(layer).num_kv_heads;
  if (q_heads < 1 || q_heads % kv_heads != 0) {
    throw UsageError("KV cache: {} query heads, must be a multiple of layer {}'s {} KV heads", q_heads, layer,
                     kv_heads);
  }
  return static_cast<std::size_t>(q_heads / kv_heads);
}

void KvCache::scores(int layer, int sequence, const float* q, int q_heads, float* out) const {
  const TokenStore& tokens_of = store(layer, sequence);
  const CacheLayer& config = this->layer(layer);
  const std::size_t group = group_size(layer, q_heads), tokens = tokens_of.tokens();
  const auto kv_heads = static_cast<std::size_t>(config.num_kv_heads);
  const auto d = static_cast<std::size_t>(config.head_dim);
#pragma omp parallel for schedule(static) num_threads(team_size(kv_heads))
  for (std::size_t head = 0; head < kv_heads; ++head) {
    score_head(tokens_of, config, static_cast<int>(head), {q + head * group * d, group}, tokens,
               out + head * group * tokens);
  }
}

void KvCache::attend_sequences(int layer, int first_sequence, int sequences, const float* q, int q_heads,
                               float softmax_scale, float* out, float* lse) const {
  const CacheLayer& config = this->layer(layer);
  const std::size_t group = group_size(layer, q_heads);
  const auto kv_heads = static_cast<std::size_t>(config.num_kv_heads);
  const auto d = static_cast<std::size_t>(config.head_dim);
  const std::size_t tasks = static_cast<std::size_t>(sequences) * kv_heads;
  // Sequences differ in length: threads take one task at a time.
#pragma omp parallel for schedule(dynamic) num_threads(team_size(tasks))
  for (std::size_t task = 0; task < tasks; ++task) {
    const TokenStore& tokens = store(layer, first_sequence + static_cast<int>(task / kv_heads));
    const HeadAttention attention = attention_over_all(tokens, config, static_cast<int>(task % kv_heads),
                                                       {q + task * group * d, group}, softmax_scale);
    attention.finish(out + task * group * d, lse == nullptr ? nullptr : lse + task * group);
  }
}

void KvCache::attend(int layer, int sequence, const float* q, int q_heads, float softmax_scale, float* out,
                     float* lse) const {
  check_index("sequence", sequence, batch_);
  attend_sequences(layer, sequence, 1, q, q_heads, softmax_scale, out, lse);
}

void KvCache::attend_batch(int layer, const float* q, int q_heads, float softmax_scale, float* out,
                           float* lse) const {
  attend_sequences(layer, 0, batch_, q, q_heads, softmax_scale, out, lse);
}

CacheBytes KvCache::bytes_used() const {
  CacheBytes bytes;
  for (int number = 0; number < layers(); ++number) {
    const CacheLayer& config = layer(number);
    const auto heads = static_cast<std::size_t>(config.num_kv_heads);
    const std::size_t exact_token = 4 * heads * static_cast<std::size_t>(config.head_dim);
    for (int sequence = 0; sequence < batch_; ++sequence) {
      const TokenStore& tokens = store(number, sequence);
      const TokenCounts held = tokens.counts();
      const PageLayout& row = tokens.layout();
      const std::size_t rows = held.quantised * heads;
      bytes.key_codes += rows * (row.key_code_bytes + row.key_sign_bytes);
      bytes.key_scalars += rows * (row.key_scale_bytes + row.key_residual_norm_bytes);
      bytes.value_codes += rows * row.value_code_bytes;
      bytes.value_scalars += rows * (row.value_scale_bytes + row.value_zero_bytes);
      (config.exact() ? bytes.exact_layers : bytes.sinks) += held.sinks * exact_token;
      bytes.window += held.window * exact_token;
      bytes.allocated += tokens.allocated_bytes();
    }
  }
  return bytes;
}

}  // namespace tq
