#include <algorithm>

#include "core/half.h"
#include "core/head_attention.h"
#include "core/kv_cache.h"
#include "core/tile.h"

namespace tq {
namespace {

using Part = TokenStore::Part;
using Side = TokenStore::Side;

// Tokens whose queries share every decoded page. More would see more of the window in vain.
constexpr std::size_t kQueryTokens = 32;

static_assert(HeadAttention::kMaxRun == kPageTokens);

// Calls step(begin, rows) for the pages' worth of tokens [begin, end).
template <typename Step>
void for_each_run(std::size_t begin, std::size_t end, const Step& step) {
  for (; begin < end; begin += kPageTokens) step(begin, std::min(kPageTokens, end - begin));
}

// Every token that is in the window at some time while `tokens` more are appended, as the floats that
// binary16 holds: taken before, since afterwards many of them are codes. Positions count from the sequence's
// first token.
class WindowTokens {
 public:
  WindowTokens(const TokenStore& store, const CacheLayer& layer, const float* k, const float* v,
               std::size_t tokens)
      : d_(static_cast<std::size_t>(layer.head_dim)),
        held_(store.counts().window),
        begin_(store.tokens() - held_),
        rows_(held_ + tokens) {
    const auto heads = static_cast<std::size_t>(layer.num_kv_heads);
    for (std::vector<float>* side : {&keys_, &values_}) side->resize(heads * rows_ * d_);
    std::vector<std::uint16_t> halves(d_);
    for (std::size_t head = 0; head < heads; ++head) {
      const auto take = [&](Side side, const float* x, float* out) {
        store.read_exact(Part::window, side, static_cast<int>(head), 0, held_, out);
        out += held_ * d_;
        for (std::size_t t = 0; t < tokens; ++t, out += d_) {
          const float* row = x + (t * heads + head) * d_;
          float_to_half_saturate(row, halves.data(), d_);
          half_to_float(halves.data(), out, d_);
        }
      };
      take(Side::keys, k, keys_.data() + head * rows_ * d_);
      take(Side::values, v, values_.data() + head * rows_ * d_);
    }
  }

  const float* keys(std::size_t head, std::size_t position) const {
    return keys_.data() + offset(head, position);
  }
  const float* values(std::size_t head, std::size_t position) const {
    return values_.data() + offset(head, position);
  }

 private:
  std::size_t offset(std::size_t head, std::size_t position) const {
    return (head * rows_ + position - begin_) * d_;
  }

  std::size_t d_, held_, begin_, rows_;
  std::vector<float> keys_, values_;  // kv_heads x rows x d
};

}  // namespace

void KvCache::append_and_attend(int layer, int sequence, const float* k, const float* v, std::size_t tokens,
                                const float* q, int q_heads, float softmax_scale, float* out) {
  const CacheLayer& config = this->layer(layer);
  const std::size_t group = group_size(layer, q_heads);
  const auto kv_heads = static_cast<std::size_t>(config.num_kv_heads);
  const auto d = static_cast<std::size_t>(config.head_dim);
  TokenStore& store = stores_[index(layer, sequence)];
  const std::size_t before = store.tokens();
  const WindowTokens recent(store, config, k, v, config.exact() ? 0 : tokens);
  store.append(k, v, tokens);

  // Queries [begin, end) of the input, of one KV head.
  const auto attend_block = [&](std::size_t head, std::size_t begin, std::size_t end) {
    const std::size_t count = (end - begin) * group;
    std::vector<float> queries(count * d), result(count * d);
    std::vector<TokenRange> sinks, quantised, window;  // what each query sees of them; the window by position
    for (std::size_t t = begin; t < end; ++t) {
      const float* first = q + (t * kv_heads + head) * group * d;
      std::copy_n(first, group * d, &queries[(t - begin) * group * d]);
      const TokenCounts held = store.counts_after(before + t + 1);
      sinks.insert(sinks.end(), group, {0, held.sinks});
      quantised.insert(quantised.end(), group, {0, held.quantised});
      window.insert(window.end(), group, {before + t + 1 - held.window, before + t + 1});
    }
    HeadAttention attention(queries.data(), count, d, softmax_scale);
    const int kv_head = static_cast<int>(head);
    std::vector<float> keys(kPageTokens * d), values(kPageTokens * d);
    for_each_run(0, sinks.back().end, [&](std::size_t run, std::size_t rows) {
      store.read_exact(Part::sinks, Side::keys, kv_head, run, rows, keys.data());
      store.read_exact(Part::sinks, Side::values, kv_head, run, rows, values.data());
      attention.add_rows(keys.data(), values.data(), rows, sinks, run);
    });
    if (quantised.back().end > 0) {
      const KeyCodec& codec = config.key_codec(kv_head);
      const PreparedQueries prepared = codec.prepare(queries.data(), count);
      for_each_run(0, quantised.back().end, [&](std::size_t run, std::size_t rows) {
        const std::size_t page = run / kPageTokens;
        attention.add_codes(codec, prepared, store.keys(page, kv_head), config.value_codec(kv_head),
                            store.values(page, kv_head), rows, quantised, run);
      });
    }
    // Of a token that is a sink, or is quantised at once, the window is empty.
    const auto first_seen = std::find_if(window.begin(), window.end(),
                                         [](const TokenRange& range) { return range.begin < range.end; });
    const std::size_t window_end = window.back().end;
    const std::size_t window_begin = first_seen == window.end() ? window_end : first_seen->begin;
    for_each_run(window_begin, window_end, [&](std::size_t run, std::size_t rows) {
      attention.add_rows(recent.keys(head, run), recent.values(head, run), rows, window, run);
    });
    attention.finish(result.data(), nullptr);
    for (std::size_t t = begin; t < end; ++t) {
      std::copy_n(&result[(t - begin) * group * d], group * d, out + (t * kv_heads + head) * group * d);
    }
  };
  const std::size_t blocks = (tokens + kQueryTokens - 1) / kQueryTokens, tasks = blocks * kv_heads;
#pragma omp parallel for schedule(dynamic) num_threads(team_size(tasks))
  for (std::size_t task = 0; task < tasks; ++task) {
    const std::size_t block = blocks - 1 - task / kv_heads;  // the longest first
    attend_block(task % kv_heads, block * kQueryTokens, std::min(tokens, (block + 1) * kQueryTokens));
  }
}

}  // namespace tq
