#pragma once

#include <vector>

#include "calibration/coordinate_histogram.h"
#include "calibration/layer_context.h"
#include "calibration/residual_statistics.h"
#include "core/codec_config.h"
#include "core/key_codec.h"

namespace tq {

// Passes over the fit tokens of one layer (all tokens without a split). Every list has one entry for the
// layer, or one a KV head; layer entries are the merged head entries. Collective: every member of the layer's
// team reads its blocks of tokens, and all get the same merged statistics.

struct LayerHistograms {
  std::vector<CoordinateHistogram> keys, values;  // empty when not asked for
};
LayerHistograms collect_histograms(LayerContext& layer, bool per_head, bool keys, bool values);

// Residuals of prod codecs with the given tables; the tables' alpha does not matter. One list a table set:
// result[table set][head or layer]. `tables[i]` has one entry or one a KV head. The score sums are collected
// only for AlphaTarget::score.
std::vector<std::vector<ResidualStatistics>> collect_residuals(
    LayerContext& layer, bool per_head, const KeyConfig& config,
    const std::vector<std::vector<KeyTables>>& tables, AlphaTarget target);

}  // namespace tq
