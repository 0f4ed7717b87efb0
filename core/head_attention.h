#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "core/attention.h"
#include "core/key_codec.h"
#include "core/value_codec.h"

namespace tq {

// Tokens [begin, end) of a list of tokens.
struct TokenRange {
  std::size_t begin = 0, end = 0;
};

// Attention of queries that read one KV head, over tokens that come in runs of at most kMaxRun, their softmax
// running over all of them. On the calling thread.
//
// Of each run, `seen` says what every query may see of the list that the run is a part of, and `first` where
// in that list the run begins; an empty `seen` lets every query see the whole run. A value that a query does
// not see has weight 0 in its output, so a NaN there is a NaN all the same.
class HeadAttention {
 public:
  static constexpr std::size_t kMaxRun = 64;

  // q: count x d.
  HeadAttention(const float* q, std::size_t count, std::size_t d, float softmax_scale);

  // keys, values: rows x d.
  void add_rows(const float* keys, const float* values, std::size_t rows,
                std::span<const TokenRange> seen = {}, std::size_t first = 0);
  // Encoded rows. `prepared` is what keys.prepare() makes of the queries. All runs of codes have values of
  // one codec.
  void add_codes(const KeyCodec& keys, const PreparedQueries& prepared, const ConstKeyBlock& key_block,
                 const ValueCodec& values, const ConstValueBlock& value_block, std::size_t rows,
                 std::span<const TokenRange> seen = {}, std::size_t first = 0);

  // out: count x d; lse, where not null: count. As KvCache::attend().
  void finish(float* out, float* lse) const;

 private:
  void weigh(std::size_t rows, std::span<const TokenRange> seen, std::size_t first);

  const float* q_;
  std::size_t count_, d_;
  float scale_;
  const KeyCodec* rotated_values_ = nullptr;  // what code_sum_ must be unrotated by
  std::vector<SoftmaxStream> softmax_;
  std::vector<char> broken_;      // queries with a score that no softmax can use
  std::vector<float> exact_sum_;  // count x d
  std::vector<float> code_sum_;   // count x d, in the frame of ValueCodec::decode_block
  std::vector<float> rows_;       // one run of decoded values
  std::vector<float> scores_;     // count x run
};

}  // namespace tq
