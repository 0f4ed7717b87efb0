#pragma once

#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "calibration/evaluate_capture.h"
#include "core/cache_policy.h"
#include "experiments/language_model/model_config.h"
#include "experiments/sweep/axes.h"
#include "experiments/sweep/data_source.h"

namespace tq {

// Of what a result line is; part of its key. Raised when the same configuration gives other numbers or a line
// other fields.
inline constexpr int kResultFormat = 2;

// What planning must know of a capture.
struct CaptureFacts {
  std::string path, sha256;
  std::vector<int> head_dims;  // each once
  bool queries = false;        // that scores can be measured with
  std::size_t tokens = 0;
  int num_layers = 0, num_kv_heads = 0;
};

// What planning must know of a model.
struct ModelFacts {
  ModelConfig config;
  std::string sha256;  // of the digests of its config.json and its safetensors, in the order of their names
};

// What a sweep reads, each file once.
class InputCatalogue {
 public:
  explicit InputCatalogue(Trust trust) : trust_(trust) {}

  // By the value of the axis `source`; null for a synthetic one. Throws InputError for a capture that cannot
  // be read.
  const CaptureFacts* find_capture(const std::string& source);
  // Throws InputError for a folder without a model that LanguageModel reads.
  const ModelFacts& model(const std::string& folder);
  const std::string& file_sha256(const std::string& path);
  // Of everything asked for so far, by its name.
  const std::map<std::string, std::string>& digests() const { return digests_; }

 private:
  Trust trust_;
  std::map<std::string, CaptureFacts> captures_;
  std::map<std::string, ModelFacts> models_;
  std::map<std::string, std::string> digests_;
};

// The cache of `measure = fused`; its tokens are the data's rows.
struct FusedShape {
  int kv_heads = 1;
  int group = 1;  // query heads a KV head
};

// What `measure = capacity` fills.
struct CapacityShape {
  std::uint64_t memory = 0;   // bytes of the device
  std::uint64_t percent = 0;  // of it that the cache may fill
  std::uint64_t kv_heads = 1;
};

// What `measure = perplexity` reads, and with which cache.
struct PerplexityShape {
  std::string model, text;  // a folder; a file of bytes, or "tokens:" and a file of tokens
  std::size_t context = 0;
  CachePolicy policy;
  int num_layers = 0, num_kv_heads = 0, head_dim = 0;
};

// One measurement of a sweep.
struct Configuration {
  Point point;  // effective values; "" where an axis makes no difference
  CodecOptions codec;
  DataKey data;
  std::optional<FusedShape> fused;  // none of these three: `measure = quality`
  std::optional<CapacityShape> capacity;
  std::optional<PerplexityShape> perplexity;
  std::string capture_sha256;             // "" for synthetic data
  std::string model_sha256, text_sha256;  // of perplexity
  int num_kv_heads = 1;
  std::size_t work = 0;  // vectors' worth of it, for the remaining time
  // SHA-256 of the effective values, the content of captures, models and texts (not their
  // names) and kResultFormat.
  std::string key;

  // Whether `data` says on what it is measured.
  bool has_data() const { return !fused && !capacity && !perplexity; }
};

// Clears the axes that make no difference: what only other measures read, sizes of synthetic data for a
// capture, the group size of rotated values, the scale rule of prod keys, the bits of codecs that come in one
// size, equalise where it is none, ... so that one measurement has one point.
void normalise(Point& point);

// Of a normalised point. Throws UsageError for a combination that cannot be measured, and says how to exclude
// it.
Configuration configure(const Point& point, InputCatalogue& inputs);

// The effective values, numbers as numbers, in the order of the axes.
nlohmann::ordered_json to_json(const Point& point);

}  // namespace tq
