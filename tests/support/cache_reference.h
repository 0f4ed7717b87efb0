#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <span>
#include <vector>

#include "core/cache_layer.h"
#include "core/cache_policy.h"
#include "tests/support/reference.h"

namespace tq::reference {

// One layer and sequence of a KV cache, slow and obvious: tokens come one at a time, move as the policy's
// text says, and attention is a float64 softmax over reconstructions. Only the codes are core's, of one row
// at a time; what they mean is decoded here.
class SlowCache {
 public:
  SlowCache(const CacheLayer& layer, const CachePolicy& policy);

  // k, v: num_kv_heads x d, finite.
  void append(const float* k, const float* v);

  struct Row {
    EncodedKeys key_codes;  // one row, once quantised
    EncodedValues value_codes;
    Vector key, value;  // what attention sees
  };
  struct Token {
    bool quantised = false;
    std::vector<Row> heads;
  };
  const std::vector<Token>& tokens() const { return tokens_; }
  std::vector<std::size_t> quantised() const;  // in the order in which they were quantised
  TokenCounts counts() const { return {sinks_, quantised_.size(), window_.size()}; }

  struct Attention {
    Vector scores, out;  // scores: <q, k^_t>, unscaled
    double lse;
  };
  // q: d values, of one query head that reads `kv_head`. At least one token.
  Attention attend(int kv_head, std::span<const float> q, double softmax_scale) const;

 private:
  void quantise(Token& token);

  const CacheLayer& layer_;
  CachePolicy policy_;
  std::size_t sinks_ = 0;
  std::vector<Token> tokens_;
  std::vector<std::size_t> quantised_;
  std::deque<std::size_t> window_;
  // Of each head's codecs; of order 0 where there is none.
  std::vector<Matrix> key_rotations_, sketches_, value_rotations_;
};

}  // namespace tq::reference
