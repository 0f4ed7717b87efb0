#pragma once

#include <cstddef>
#include <vector>

#include "calibration/codec_candidates.h"
#include "calibration/evaluation.h"
#include "core/cache_policy.h"

namespace tq {

struct CandidateMetrics {
  LayerMetrics metrics, standard_errors;
  // The attention-output error: the one measure that keys and values share, and therefore what they are
  // compared and added by.
  double harm() const { return *metrics.output_error; }
};

// What every candidate does to a layer whose other side stays exact, [candidate][query part].
struct LayerSensitivity {
  int layer = 0;
  int head_dim = 0;
  int num_kv_heads = 0;
  std::vector<KeyTables> key_tables;  // one a key candidate
  std::vector<std::vector<CandidateMetrics>> keys, values;
};

// Quantises one side of one layer at a time, with every candidate: all tokens but those that `policy` keeps
// exact. Throws InputError where the queries of a part see no token.
std::vector<LayerSensitivity> measure_sensitivity(CandidateLayers& layers, const CachePolicy& policy);

// What every contender does to one layer's attention, in one pass, [contender][set of queries]. Memory:
// O(contenders x queries x d).
std::vector<std::vector<CandidateMetrics>> measure_contenders(LayerContext& layer,
                                                              const std::vector<Contender>& contenders,
                                                              const std::vector<LayerQueries>& queries,
                                                              const CachePolicy& policy);

}  // namespace tq
