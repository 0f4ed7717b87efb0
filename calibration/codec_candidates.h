#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <vector>

#include "calibration/cache_backend.h"
#include "calibration/layer_context.h"
#include "core/codec_config.h"
#include "core/rotation.h"
#include "core/sketch.h"

namespace tq {

// The codecs that are tried on every layer, with data-free tables.
struct CodecCandidates {
  std::vector<KeyConfig> keys;
  std::vector<ValueConfig> values;
  RotationKind rotation = RotationKind::rht;
  AlphaTarget alpha = AlphaTarget::mse;  // of prod keys: fitted to all tokens of a layer
  std::uint64_t seed = 0;                // of the rotation and the sketch
};

// Which queries harm is measured on. Data-free codecs have seen no token, so what is chosen among them by
// measuring is fitted to queries, and the choice is judged by others: the second half of the captured rows,
// which in a capture of several documents asks of other documents. (Holding tokens out instead would compare
// distances: how much a token matters depends on how far it lies before the query.)
enum class QueryParts { all, fit_and_held_out };
inline constexpr std::size_t kFitPart = 0, kHeldOutPart = 1;

// One layer of a capture with every candidate made for it.
struct CandidateLayer {
  LayerContext context;               // its queries are those of the first part
  std::vector<LayerQueries> queries;  // by part
  std::vector<KeyTables> key_tables;  // one a key candidate
  std::vector<std::shared_ptr<const KeyBackend>> keys;
  std::vector<std::shared_ptr<const ValueBackend>> values;
};

// Opens a capture's layers, which share what is random.
class CandidateLayers {
 public:
  // All arguments outlive the object. Throws UsageError where a candidate does not fit a layer's head_dim;
  // InputError where a layer lacks keys, values or post-RoPE queries, without which no attention output can
  // be compared, or where there are fewer rows of queries than parts.
  CandidateLayers(CaptureReader& capture, const CodecCandidates& candidates, QueryParts parts,
                  const Progress& progress);

  const CaptureReader& capture() const { return capture_; }

  // Fits alpha where `key_tables` is empty; else takes the tables of an earlier open().
  CandidateLayer open(int index, std::vector<KeyTables> key_tables = {});

  // Tokens that open() with no tables reports to `progress`.
  static std::size_t fitting_work(const CaptureInfo& info, const CodecCandidates& candidates);

 private:
  CaptureReader& capture_;
  const CodecCandidates& candidates_;
  QueryParts parts_;
  const Progress& progress_;
  std::map<int, std::shared_ptr<const Rotation>> rotations_;  // one a head_dim
  std::map<int, std::shared_ptr<const Sketch>> sketches_;
};

}  // namespace tq
