#include "calibration/layer_context.h"

#include <fmt/format.h>

#include <cmath>

namespace tq {

LayerContext::LayerContext(Capture& capture, int layer_index, const TokenSplit* token_split,
                           std::shared_ptr<const Rotation> layer_rotation,
                           std::shared_ptr<const Sketch> layer_sketch, Progress on_progress)
    : layer(layer_index),
      where(fmt::format("{}: layer {}", capture.path(), layer_index)),
      split(token_split),
      info(capture.info().layers.at(static_cast<std::size_t>(layer_index))),
      num_kv_heads(capture.info().num_kv_heads),
      num_q_heads(capture.info().num_q_heads),
      softmax_scale(capture.info().softmax_scale.value_or(1 / std::sqrt(static_cast<double>(info.head_dim)))),
      rotation(std::move(layer_rotation)),
      sketch(std::move(layer_sketch)),
      stream(capture, layer_index, token_split),
      queries(read_queries(capture, layer_index)),
      progress(std::move(on_progress)) {}

LayerContext::LayerContext(int layer_index, const LayerInfo& layer_info, int kv_heads, int q_heads,
                           double scale, LayerStream tokens, LayerQueries layer_queries)
    : layer(layer_index),
      where(fmt::format("layer {}", layer_index)),
      split(nullptr),
      info(layer_info),
      num_kv_heads(kv_heads),
      num_q_heads(q_heads),
      softmax_scale(scale),
      stream(std::move(tokens)),
      queries(std::move(layer_queries)) {}

}  // namespace tq
