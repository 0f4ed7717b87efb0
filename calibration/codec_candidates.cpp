#include "calibration/codec_candidates.h"

#include <algorithm>

#include "calibration/fit_alpha.h"
#include "calibration/layer_statistics.h"
#include "core/error.h"
#include "core/value_codec.h"

namespace tq {
namespace {

// Rows begin..end-1 of every head.
LayerQueries rows_of(const LayerQueries& queries, std::size_t begin, std::size_t end, std::size_t d) {
  LayerQueries part;
  part.positions_count = end - begin;
  const std::size_t all = queries.positions_count;
  for (std::size_t row = 0; row < queries.q.size() / d; row += all) {
    part.q.insert(part.q.end(), queries.q.begin() + static_cast<std::ptrdiff_t>((row + begin) * d),
                  queries.q.begin() + static_cast<std::ptrdiff_t>((row + end) * d));
  }
  const auto rows = [&](const std::vector<std::int32_t>& from) {
    return std::vector<std::int32_t>(from.begin() + static_cast<std::ptrdiff_t>(begin),
                                     from.begin() + static_cast<std::ptrdiff_t>(end));
  };
  part.positions = rows(queries.positions);
  part.sequence_ids = rows(queries.sequence_ids);
  return part;
}

}  // namespace

CandidateLayers::CandidateLayers(CaptureReader& capture, const CodecCandidates& candidates, QueryParts parts,
                                 const Progress& progress)
    : capture_(capture), candidates_(candidates), parts_(parts), progress_(progress) {
  const CaptureInfo& info = capture.info();
  if (info.key_basis != "post_rope") {
    throw InputError("{}: keys are captured before RoPE; attention outputs cannot be formed from them",
                     capture.path());
  }
  if (parts == QueryParts::fit_and_held_out && info.query_tokens == 1) {
    throw InputError("{}: one row of queries; two at least are wanted, one to choose by and one to judge by",
                     capture.path());
  }
  for (std::size_t i = 0; i < info.layers.size(); ++i) {
    const LayerInfo& layer = info.layers[i];
    if (!layer.has_k || !layer.has_v || !layer.has_q || info.query_tokens == 0) {
      throw InputError(
          "{}: layer {} has no {}; harm is the error of the attention output, which needs k, v and q",
          capture.path(), i,
          !layer.has_k   ? "k"
          : !layer.has_v ? "v"
                         : "queries");
    }
    for (const KeyConfig& key : candidates.keys) {
      validate(key, layer.head_dim);
      if (key.mode != KeyMode::prod || sketches_.contains(layer.head_dim)) continue;
      sketches_[layer.head_dim] =
          std::make_shared<Sketch>(Sketch::make(key.sketch, layer.head_dim, candidates.seed));
    }
    for (const ValueConfig& value : candidates.values) validate(value, layer.head_dim);
    if (rotations_.contains(layer.head_dim)) continue;
    rotations_[layer.head_dim] =
        std::make_shared<Rotation>(Rotation::make(candidates.rotation, layer.head_dim, candidates.seed));
  }
}

CandidateLayer CandidateLayers::open(int index, std::vector<KeyTables> key_tables) {
  const int d = capture_.info().layers.at(static_cast<std::size_t>(index)).head_dim;
  const auto sketch = sketches_.find(d);
  CandidateLayer layer{LayerContext(capture_, index, nullptr, rotations_.at(d),
                                    sketch == sketches_.end() ? nullptr : sketch->second, progress_),
                       {},
                       std::move(key_tables),
                       {},
                       {}};
  LayerContext& context = layer.context;
  if (parts_ == QueryParts::all) {
    layer.queries = {context.queries};
  } else {
    const std::size_t rows = context.queries.positions_count, half = rows / 2;
    layer.queries = {rows_of(context.queries, 0, half, context.head_dim()),
                     rows_of(context.queries, half, rows, context.head_dim())};
    context.queries = layer.queries[kFitPart];
  }
  const bool fitted = !layer.key_tables.empty();
  for (std::size_t i = 0; i < candidates_.keys.size(); ++i) {
    const KeyConfig& key = candidates_.keys[i];
    if (!fitted) {
      KeyTables tables = default_key_tables(key, d);
      if (key.mode == KeyMode::prod && candidates_.alpha != AlphaTarget::unbiased) {
        const auto residuals = collect_residuals(context, false, key, {{tables}}, candidates_.alpha);
        tables.qjl_scale = fit_alpha(candidates_.alpha, residuals[0][0], d, context.where);
      }
      layer.key_tables.push_back(std::move(tables));
    }
    layer.keys.push_back(host_backend().keys(
        key, context.rotation, key.mode == KeyMode::prod ? context.sketch : nullptr, layer.key_tables[i]));
  }
  for (const ValueConfig& value : candidates_.values) {
    layer.values.push_back(host_backend().values(value, d, context.rotation, default_value_table(value, d)));
  }
  return layer;
}

std::size_t CandidateLayers::fitting_work(const CaptureInfo& info, const CodecCandidates& candidates) {
  if (candidates.alpha == AlphaTarget::unbiased) return 0;
  const auto prod = std::count_if(candidates.keys.begin(), candidates.keys.end(),
                                  [](const KeyConfig& key) { return key.mode == KeyMode::prod; });
  return static_cast<std::size_t>(prod) * info.tokens * info.layers.size();
}

}  // namespace tq
