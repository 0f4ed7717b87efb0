#include "experiments/sweep/round_trip_cache.h"

#include <algorithm>
#include <array>
#include <functional>
#include <iterator>
#include <vector>

#include "core/half.h"
#include "core/head_attention.h"
#include "core/tile.h"
#include "experiments/cache_codec.h"
#include "experiments/sweep/head_bytes.h"

namespace tq {
namespace {

// What storing leaves of rows of keys or of values: rows x d to rows x d.
using RoundTrip = std::function<void(const float* x, std::size_t rows, float* out)>;

RoundTrip stored(const StorageConfig& storage, const CodecOptions& codec, int head_dim) {
  const auto rotation =
      storage.codec->rotates()
          ? std::make_shared<const Rotation>(Rotation::make(codec.rotation, head_dim, codec.seed))
          : nullptr;
  return [values = storage_values(storage, head_dim, rotation)](
             const float* x, std::size_t rows, float* out) { values->encode_decode(x, rows, out); };
}

template <typename Encoded, typename Codec>
RoundTrip coded(std::shared_ptr<const Codec> codec) {
  return [codec](const float* x, std::size_t rows, float* out) {
    Encoded encoded;
    codec->encode(x, rows, encoded);
    codec->decode(encoded, out);
  };
}

std::array<RoundTrip, 2> keys_and_values(const CodecOptions& codec, int head_dim) {
  std::array<RoundTrip, 2> sides;
  const auto d = static_cast<std::size_t>(head_dim);
  sides.fill([d](const float* x, std::size_t rows, float* out) { std::copy_n(x, rows * d, out); });
  if (codec.quantise_keys) {
    sides[0] = codec.key_storage ? stored(*codec.key_storage, codec, head_dim)
                                 : coded<EncodedKeys>(make_key_codec(codec, head_dim));
  }
  if (codec.quantise_values) {
    sides[1] = codec.value_storage ? stored(*codec.value_storage, codec, head_dim)
                                   : coded<EncodedValues>(make_value_codec(codec, head_dim));
  }
  return sides;
}

// Tokens whose queries share every run of rows.
constexpr std::size_t kQueryTokens = 32;

class RoundTripCache : public AttentionCache {
 public:
  RoundTripCache(const ModelConfig& config, const CodecOptions& codec, const CachePolicy& policy)
      : config_(config),
        policy_(policy),
        kv_heads_(static_cast<std::size_t>(config.num_kv_heads)),
        group_(static_cast<std::size_t>(config.num_q_heads / config.num_kv_heads)),
        d_(static_cast<std::size_t>(config.head_dim)),
        round_trips_(keys_and_values(codec, config.head_dim)) {
    const HeadBytes bytes = head_bytes(codec, config.head_dim);
    quantised_bytes_ = static_cast<std::size_t>(bytes.stored) + 4 * d_ - static_cast<std::size_t>(bytes.fp16);
    clear();
  }

  void clear() override { heads_.assign(static_cast<std::size_t>(config_.num_layers) * kv_heads_, {}); }

  void append_and_attend(int layer, const float* k, const float* v, std::size_t tokens, const float* q,
                         float* out) override {
    Head* heads = &heads_[static_cast<std::size_t>(layer) * kv_heads_];
    const std::size_t before = heads->exact[0].size() / d_;
    const std::size_t blocks = (tokens + kQueryTokens - 1) / kQueryTokens, tasks = blocks * kv_heads_;
    for (std::size_t head = 0; head < kv_heads_; ++head) {
      append(heads[head], 0, k + head * d_, tokens);
      append(heads[head], 1, v + head * d_, tokens);
    }
#pragma omp parallel for schedule(dynamic) num_threads(team_size(tasks))
    for (std::size_t task = 0; task < tasks; ++task) {
      const std::size_t block = blocks - 1 - task / kv_heads_, head = task % kv_heads_;
      attend(heads[head], before, block * kQueryTokens, std::min(tokens, (block + 1) * kQueryTokens),
             q + head * group_ * d_, out + head * group_ * d_);
    }
  }

  std::size_t bytes() const override {
    std::size_t sum = 0;
    for (const Head& head : heads_) {
      const TokenCounts held = token_counts(policy_, head.exact[0].size() / d_);
      sum += (held.sinks + held.window) * 4 * d_ + held.quantised * quantised_bytes_;
    }
    return sum;
  }

 private:
  // Keys, then values: tokens x d.
  struct Head {
    std::array<std::vector<float>, 2> exact, decoded;
  };

  // Appends every num_kv_heads-th row of x.
  void append(Head& head, std::size_t side, const float* x, std::size_t tokens) const {
    std::vector<float>&exact = head.exact[side], &decoded = head.decoded[side];
    const std::size_t end = exact.size();
    for (std::size_t t = 0; t < tokens; ++t, x += kv_heads_ * d_) {
      std::transform(x, x + d_, std::back_inserter(exact),
                     [](float value) { return half_to_float(float_to_half_saturate(value)); });
    }
    decoded.resize(exact.size());
    round_trips_[side](&exact[end], tokens, &decoded[end]);
  }

  // Queries of the input's tokens [begin, end).
  void attend(const Head& head, std::size_t before, std::size_t begin, std::size_t end, const float* q,
              float* out) const {
    const std::size_t stride = kv_heads_ * group_ * d_, count = (end - begin) * group_;
    std::vector<float> queries(count * d_), result(count * d_);
    std::vector<TokenRange> sinks, quantised, window;
    for (std::size_t t = begin; t < end; ++t) {
      std::copy_n(q + t * stride, group_ * d_, &queries[(t - begin) * group_ * d_]);
      const TokenCounts held = token_counts(policy_, before + t + 1);
      sinks.insert(sinks.end(), group_, {0, held.sinks});
      quantised.insert(quantised.end(), group_, {held.sinks, held.sinks + held.quantised});
      window.insert(window.end(), group_, {held.sinks + held.quantised, before + t + 1});
    }
    HeadAttention attention(queries.data(), count, d_, softmax_scale(config_));
    const auto add = [&](const std::array<std::vector<float>, 2>& rows, const std::vector<TokenRange>& seen) {
      for (std::size_t run = seen.front().begin; run < seen.back().end; run += HeadAttention::kMaxRun) {
        const std::size_t run_rows = std::min(HeadAttention::kMaxRun, seen.back().end - run);
        attention.add_rows(&rows[0][run * d_], &rows[1][run * d_], run_rows, seen, run);
      }
    };
    add(head.exact, sinks);
    add(head.decoded, quantised);
    add(head.exact, window);
    attention.finish(result.data(), nullptr);
    for (std::size_t t = begin; t < end; ++t)
      std::copy_n(&result[(t - begin) * group_ * d_], group_ * d_, out + t * stride);
  }

  ModelConfig config_;
  CachePolicy policy_;
  std::size_t kv_heads_, group_, d_;
  std::array<RoundTrip, 2> round_trips_;  // of keys, of values
  std::size_t quantised_bytes_;           // of a token and KV head
  std::vector<Head> heads_;               // layers x KV heads
};

}  // namespace

std::unique_ptr<AttentionCache> round_trip_cache(const ModelConfig& config, const CodecOptions& codec,
                                                 const CachePolicy& policy) {
  return std::make_unique<RoundTripCache>(config, codec, policy);
}

}  // namespace tq
