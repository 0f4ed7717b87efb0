#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "calibration/artefact/artefact.h"
#include "calibration/sensitivity.h"

namespace tq {

struct ScheduleOptions {
  CodecCandidates candidates;
  std::int64_t budget = 0;  // bytes of a quantised token: keys and values of all layers and KV heads
  int protect_first = 0, protect_last = 0;  // layers that take the least harmful candidates
  CachePolicy policy = kQuantiseAll;
};

// Indices into the candidates.
struct CodecPair {
  std::size_t key = 0, value = 0;
  friend bool operator==(const CodecPair&, const CodecPair&) = default;
};

// The same codecs in every layer.
struct UniformConfiguration {
  CodecPair codecs;
  std::int64_t bytes = 0;
  double harm = 0, standard_error = 0;
};

// Harms are means over layers of the attention-output error.
struct Schedule {
  std::vector<LayerSensitivity> layers;  // what was measured, by fit and by held-out queries
  std::vector<CodecPair> codecs;         // by layer
  std::int64_t bytes = 0;                // of a quantised token
  double fit_sum = 0;       // of both sides measured apart, by the fit queries: the least possible
  double held_out_sum = 0;  // the same by the held-out queries
  double held_out_harm = 0, held_out_standard_error = 0;  // measured with both sides quantised
  std::vector<double> held_out_by_layer;
  // Every uniform configuration of at most `budget` bytes, measured as held_out_harm is, the least harm
  // first.
  std::vector<UniformConfiguration> uniform;

  // No uniform configuration of the budget does less harm.
  bool stands() const { return uniform.empty() || held_out_harm <= uniform.front().harm; }
};

// Measures the harm of every candidate by the fit queries, chooses those that do the least in total within
// the budget (calibration/byte_budget.h), and checks the choice by the held-out queries, beside every uniform
// configuration. Throws what CandidateLayers, measure_sensitivity() and least_harm() do, and UsageError where
// more layers are to be protected than there are.
Schedule make_schedule(CaptureReader& capture, const ScheduleOptions& options, const Progress& progress);

// Tokens that make_schedule() will report to its progress.
std::size_t schedule_work(const CaptureInfo& info, const CodecCandidates& candidates);

// The schedule's codecs with their tables; provenance holds the token count only.
Artefact schedule_artefact(const CaptureInfo& info, const ScheduleOptions& options, const Schedule& schedule);

}  // namespace tq
