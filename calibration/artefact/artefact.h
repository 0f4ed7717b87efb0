#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "core/cache_policy.h"
#include "core/codebook.h"
#include "core/codec_config.h"
#include "core/rotation.h"
#include "core/sketch.h"
#include "datasets/trust.h"

namespace tq {

// What one candidate table scored on one part of the tokens. A metric that could not be measured (no queries)
// is absent, never 0.
struct TableMetrics {
  double relative_mse = 0;                 // mean over vectors of ||x - x^||^2 / ||x||^2
  double cosine = 0;                       // mean over vectors of <x, x^> / (||x|| ||x^||)
  std::optional<double> softmax_kl{};      // nats, mean over queries (keys only)
  std::optional<double> top1_agreement{};  // share of queries whose largest score keeps its token (keys only)
  std::optional<double> output_error{};    // mean over queries of ||o - o^||^2 / ||o||^2 (values only)
  friend bool operator==(const TableMetrics&, const TableMetrics&) = default;
};

// One candidate that the gate compared, on the tokens it was fitted on and on those held out.
struct Candidate {
  std::string name;  // "default", "default table, fitted alpha", "tuned"
  TableMetrics fit;
  TableMetrics held_out;
  friend bool operator==(const Candidate&, const Candidate&) = default;
};

// Why a layer carries the tables it carries. `candidates[kept]` was shipped.
struct GateRecord {
  std::vector<Candidate> candidates;  // the data-free default first
  int kept = 0;
  std::string reason;  // one line for a person
  friend bool operator==(const GateRecord&, const GateRecord&) = default;
};

struct LayerArtefact {
  int head_dim = 0;
  int num_kv_heads = 0;
  KeyConfig key;  // may differ by layer
  ValueConfig value;
  // One entry for the whole layer, or one a KV head.
  std::vector<KeyTables> key_tables;
  // Rotated values only, same counts; empty in group mode.
  std::vector<Codebook> value_tables;
  GateRecord key_gate;
  GateRecord value_gate;  // no candidates in group mode
};

struct Provenance {
  std::string tool_version;
  std::string command_line;
  std::string utc_time;      // ISO 8601, "2026-11-23T18:34:37Z"
  std::string capture_name;  // file name without folders
  std::string capture_sha256;
  std::string model;
  std::int64_t fit_tokens = 0;
  std::int64_t held_out_tokens = 0;
  friend bool operator==(const Provenance&, const Provenance&) = default;
};

// Everything that an engine needs to encode and decode a model's cache, and the evidence for it.
struct Artefact {
  int num_q_heads = 0;
  std::string key_basis;                // "post_rope" or "pre_rope"
  std::optional<double> softmax_scale;  // absent: 1/sqrt(head_dim)
  // Which tokens stay exact; absent: whoever makes the cache chooses. flush_block is always 1.
  std::optional<CachePolicy> policy;
  Provenance provenance;
  // One a head_dim in use.
  std::map<int, Rotation> rotations;
  std::map<int, Sketch> sketches;  // empty unless some layer's keys are in prod mode
  std::vector<LayerArtefact> layers;
};

// What validate() lets pass, so that every file that is written can be read.
inline constexpr std::size_t kMaxLayers = 1000;  // /layers/NNN
inline constexpr int kMaxHeads = 4096;
inline constexpr std::size_t kMaxCandidates = 256;

// Master copy, HDF5 `*.tq.h5`. Written whole or not at all (datasets/atomic_file.h). Reading validates every
// item: throws InputError on a file that is not an artefact, of an unknown version, with a missing, extra,
// ill-sized or non-finite item, or whose digest does not match.
void write_artefact(const Artefact&, const std::string& path);
Artefact read_artefact(const std::string& path, Trust trust = Trust::none);

// Throws InputError unless the parts fit together: rotations for every head_dim, table counts 1 or
// num_kv_heads, table sizes those of the codec.
void validate(const Artefact&, const std::string& where);

}  // namespace tq
