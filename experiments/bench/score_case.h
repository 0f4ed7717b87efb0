#pragma once

#include <cstddef>
#include <vector>

#include "experiments/bench/attend_case.h"

namespace tq::bench {

// Scores of all tokens of a shape, written as float32, with as many copies of the inputs as keep them out of
// the L2 cache.
class ScoreCase {
 public:
  ScoreCase(Run& run, const AttendShape& shape, const CodecPair& codecs, const TokenSource& source);

  // What one launch must read, and the scores.
  double bytes() const { return bytes_; }
  int copies() const { return copies_; }
  Launch launch();
  // `heads` random KV heads of a random copy against float64.
  Check check(int heads);

 private:
  struct ErrorSums {
    double difference = 0, norm = 0;  // squares
  };

  std::size_t all_heads() const { return static_cast<std::size_t>(copies_) * heads_; }
  std::size_t query_elements() const {
    return static_cast<std::size_t>(shape_.group) * static_cast<std::size_t>(shape_.d);
  }  // of a KV head
  // Of each of the KV head's queries, over all tokens.
  std::vector<ErrorSums> errors_of(std::size_t head) const;

  Run& run_;
  AttendShape shape_;
  std::size_t heads_, scores_;  // KV heads and scores of one launch
  double bytes_;
  int copies_;
  QuantisedTokens storage_;
  DeviceBuffer queries_, counts_, out_;
};

}  // namespace tq::bench
