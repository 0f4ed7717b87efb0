#include "core/kv_cache.h"

#include <omp.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <stdexcept>

#include "core/attention.h"
#include "core/error.h"
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

// Attention of one KV head's queries over chunks of at most kPageTokens tokens, their softmax running over
// all of them.
class HeadAttention {
 public:
  HeadAttention(const CacheLayer& layer, int head, HeadQueries queries, float softmax_scale)
      : layer_(layer),
        head_(head),
        queries_(queries),
        scale_(softmax_scale),
        d_(static_cast<std::size_t>(layer.head_dim)),
        softmax_(queries.count),
        broken_(queries.count),
        exact_sum_(queries.count * d_),
        code_sum_(queries.count * d_),
        rows_(kPageTokens * d_),
        scores_(queries.count * kPageTokens) {}

  void add_exact(const TokenStore& store, Part part, std::size_t count) {
    for_each_chunk(count, [&](std::size_t begin, std::size_t rows) {
      store.read_exact(part, Side::keys, head_, begin, rows, rows_.data());
      dense_scores(queries_.q, queries_.count, rows_.data(), rows, d_, scores_.data());
      weigh(rows);
      store.read_exact(part, Side::values, head_, begin, rows, rows_.data());
      accumulate_weighted_rows(scores_.data(), queries_.count, rows, rows_.data(), rows, d_,
                               exact_sum_.data());
    });
  }

  void add_codes(const TokenStore& store) {
    if (store.pages() == 0) return;
    const KeyCodec& keys = layer_.key_codec(head_);
    const ValueCodec& values = layer_.value_codec(head_);
    const PreparedQueries prepared = keys.prepare(queries_.q, queries_.count);
    for (std::size_t page = 0; page < store.pages(); ++page) {
      const std::size_t rows = store.page_rows(page);
      keys.score_block(prepared, store.keys(page, head_), rows, rows, scores_.data());
      weigh(rows);
      values.decode_block(store.values(page, head_), rows, rows_.data());
      accumulate_weighted_rows(scores_.data(), queries_.count, rows, rows_.data(), rows, d_,
                               code_sum_.data());
    }
  }

  // out: count x d; lse: count, or null.
  void finish(float* out, float* lse) {
    if (!layer_.exact() && layer_.value_codec(head_).rotated() != nullptr) {
      layer_.value_codec(head_).rotated()->rotation().inverse(code_sum_.data(), out, queries_.count);
    } else {
      std::copy(code_sum_.begin(), code_sum_.end(), out);
    }
    for (std::size_t i = 0; i < queries_.count; ++i) {
      const double sum = softmax_[i].sum();
      for (std::size_t j = i * d_; j < (i + 1) * d_; ++j) {
        if (broken_[i]) {
          out[j] = std::numeric_limits<float>::quiet_NaN();
        } else {
          out[j] = sum > 0 ? static_cast<float>(static_cast<double>(exact_sum_[j] + out[j]) / sum) : 0.0f;
        }
      }
      if (lse == nullptr) continue;
      lse[i] = broken_[i] ? std::numeric_limits<float>::quiet_NaN()
               : sum > 0  ? static_cast<float>(softmax_[i].log_sum_exp())
                          : -std::numeric_limits<float>::infinity();
    }
  }

 private:
  // Turns the chunk's scores into weights, and what earlier chunks left into sums under the new maximum.
  void weigh(std::size_t rows) {
    for (std::size_t i = 0; i < queries_.count; ++i) {
      float* scores = &scores_[i * rows];
      bool usable = true;
      for (std::size_t t = 0; t < rows; ++t) {
        scores[t] *= scale_;
        usable &= std::fabs(scores[t]) < -kMaskedScore;  // false for a NaN
      }
      broken_[i] |= !usable;
      softmax_[i].add(scores, rows, 0);
      const float factor = softmax_[i].rescale();
      if (factor == 1) continue;
      for (std::size_t j = i * d_; j < (i + 1) * d_; ++j) {
        exact_sum_[j] *= factor;
        code_sum_[j] *= factor;
      }
    }
  }

  const CacheLayer& layer_;
  int head_;
  HeadQueries queries_;
  float scale_;
  std::size_t d_;
  std::vector<SoftmaxStream> softmax_;
  std::vector<char> broken_;      // queries with a score that no softmax can use
  std::vector<float> exact_sum_;  // count x d
  std::vector<float> code_sum_;   // count x d, in the frame of ValueCodec::decode_block
  std::vector<float> rows_;       // one chunk of keys, then of values
  std::vector<float> scores_;     // count x chunk
};

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
    HeadAttention attention(config, static_cast<int>(task % kv_heads), {q + task * group * d, group},
                            softmax_scale);
    attention.add_exact(tokens, Part::sinks, tokens.counts().sinks);
    attention.add_codes(tokens);
    attention.add_exact(tokens, Part::window, tokens.counts().window);
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
