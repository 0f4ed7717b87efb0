#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "calibration/cache_backend.h"
#include "calibration/exact_sum.h"
#include "calibration/layer_stream.h"
#include "calibration/process_group.h"
#include "core/attention.h"
#include "core/cache_policy.h"

namespace tq {

// No token stays exact.
inline constexpr CachePolicy kQuantiseAll{.recent = 0, .sinks = 0, .flush_block = 1};

// What one way of storing a layer's cache did to it. Means are over vectors (the first four) or over queries
// (the last six); queries that see none of the judged tokens do not count.
struct LayerMetrics {
  std::optional<double> key_relative_mse, key_cosine;  // ||k - k^||^2 / ||k||^2, <k,k^> / (||k|| ||k^||)
  std::optional<double> value_relative_mse, value_cosine;
  std::optional<double> inner_product_bias;      // sum <q,k^><q,k> / sum <q,k>^2 - 1
  std::optional<double> inner_product_error;     // sqrt(sum (<q,k^> - <q,k>)^2 / sum <q,k>^2)
  std::optional<double> inner_product_variance;  // error^2 - bias^2
  std::optional<double> softmax_kl;              // nats, KL(exact || quantised)
  std::optional<double> top1_agreement;          // share of queries that keep their largest score's token
  std::optional<double> output_error;            // ||o - o^||^2 / ||o||^2
};

// One way of storing the cache: codecs for the whole layer or one a KV head; none where that side stays
// exact.
struct Contender {
  std::string name;
  bool measure_output = true;  // the attention output costs as much as everything else
  std::vector<std::shared_ptr<const KeyBackend>> keys;
  std::vector<std::shared_ptr<const ValueBackend>> values;
};

// Measures several contenders in one pass over a layer's tokens, on several disjoint parts of them. When part
// p is judged, only its tokens are quantised: all others stay exact in both softmaxes, so that what is
// measured is the harm done by p's tokens. Memory: O(queries x d), not O(tokens).
//
// Tokens that a cache of the given policy would hold exact while a query attends stay exact for that query,
// in scores and outputs; positions count the tokens of a sequence from 0. A query that sees exact tokens
// alone counts all the same, without harm. Means over vectors take all of a part's vectors.
//
// A softmax is summed in the order of the tokens, so members of a team do not share them: every member goes
// through all tokens with its own KV heads, and gather() brings the heads together.
class LayerEvaluation {
 public:
  // `softmax_scale` multiplies <q,k>. `queries` must outlive the evaluation.
  LayerEvaluation(int head_dim, int num_kv_heads, int num_q_heads, double softmax_scale,
                  const LayerQueries& queries, std::vector<Contender> contenders, std::size_t parts,
                  const CachePolicy& policy = kQuantiseAll, const ProcessGroup& team = one_process());

  // All tokens of the block belong to `part`.
  void add(const TokenBlock& block, std::size_t part);

  // Collective, once, after the last add(): from then on metrics are those of all members' heads.
  void gather();

  LayerMetrics metrics(std::size_t contender, std::size_t part) const;
  // Of every metric, the standard error, under one rotation and sketch: how much a mean over vectors would
  // vary with other vectors, a mean over queries with other queries to the same vectors. What those vectors'
  // errors have in common for all queries it does not see: several seeds do. Quotients of sums by
  // linearisation. None for fewer than two samples.
  LayerMetrics standard_errors(std::size_t contender, std::size_t part) const;

 private:
  struct VectorErrors {
    std::uint64_t rows = 0;
    ExactSum relative_mse, cosine;
    double relative_mse_squares = 0, cosine_gap_squares = 0;  // sums of mse^2 and of (1 - cosine)^2
    void add(const float* x, const float* reconstruction, std::size_t count, std::size_t d);
    void merge(const VectorErrors& other);
  };
  // One query's view of one contender with one part quantised.
  struct QueryState {
    SoftmaxStream softmax;
    double difference = 0;  // sum of exp(s - max s) (s - t), s exact, t quantised
    double cross = 0, exact_square = 0, difference_square = 0;  // of scores
    bool judged = false;                                        // saw a token of the part
  };
  struct PartState {
    std::vector<VectorErrors> keys, values;  // one a KV head, so that heads can be worked on side by side
    std::vector<QueryState> queries;         // [q_heads][positions]
    std::vector<float> output;               // [q_heads][positions][d], times the softmax's sum
  };
  // The judged queries' contributions, one entry a query.
  struct Judged {
    std::vector<double> kl, agree, cross, exact_square, difference_square;
    std::vector<double> output_error;  // empty when not measured
    std::array<std::vector<double>*, 6> lists() {
      return {&kl, &agree, &cross, &exact_square, &difference_square, &output_error};
    }
  };
  struct HeadWork;

  static VectorErrors merged(const std::vector<VectorErrors>& heads);
  Judged judged(std::size_t contender, std::size_t part) const;
  void add_head(const TokenBlock& block, std::size_t part, std::size_t head);
  void look(const TokenBlock& block, HeadWork& work) const;
  void mask(const HeadWork& work, std::vector<float>& scores) const;
  void restore_exact(const HeadWork& work, std::vector<float>& scores) const;
  std::vector<float> mixed_output(const HeadWork& work, const std::vector<float>& weights,
                                  const std::vector<float>& quantised) const;
  void add_scores(HeadWork& work, std::size_t contender, std::size_t part);

  std::size_t d_, kv_heads_, group_;
  const LayerQueries& queries_;
  std::vector<float> scaled_queries_;
  std::vector<Contender> contenders_;
  std::size_t parts_;
  CachePolicy policy_;
  const ProcessGroup& team_;
  bool measure_output_;
  std::vector<SoftmaxStream> exact_;  // [q_heads][positions]
  std::vector<float> exact_output_;   // [q_heads][positions][d], times the softmax's sum
  std::vector<PartState> states_;     // [contender][part]
  std::vector<Judged> gathered_;      // the same, of all heads; empty before gather() of several
};

}  // namespace tq
