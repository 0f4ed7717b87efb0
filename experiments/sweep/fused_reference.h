#pragma once

#include <vector>

#include "core/kv_cache.h"

namespace tq {

// How far attention over a cache's codes is from float64 attention over the same codes. Worst values: of one
// output, or of one query head. What is NaN stays NaN, and does not pass.
struct FusedReport {
  double max_error = 0;       // |out - reference|
  double relative_error = 0;  // ||out - reference|| / ||reference||
  double cosine = 1;
  double lse_error = 0;  // absolute
  bool pass() const { return relative_error < 2e-3 && cosine > 0.99999; }
};

// Of layer 0, sequence 0 of a cache whose tokens are all quantised. q, out: q_heads x d; lse: q_heads.
FusedReport compare_with_float64(const KvCache& cache, const std::vector<float>& q, float softmax_scale,
                                 const std::vector<float>& out, const std::vector<float>& lse);

}  // namespace tq
