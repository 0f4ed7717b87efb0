#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <string>

#include "calibration/layer_stream.h"
#include "calibration/process_group.h"
#include "core/rotation.h"
#include "core/sketch.h"
#include "datasets/capture.h"

namespace tq {

// Called with the tokens done since the last call.
using Progress = std::function<void(std::size_t tokens)>;

// What every step on one layer of a capture needs to know.
struct LayerContext {
  // Without a split all tokens are one part.
  LayerContext(Capture& capture, int layer_index, const TokenSplit* token_split,
               std::shared_ptr<const Rotation> layer_rotation, std::shared_ptr<const Sketch> layer_sketch,
               Progress on_progress);

  // A layer whose tokens are in memory already, without rotation, sketch and progress.
  LayerContext(int layer_index, const LayerInfo& layer_info, int kv_heads, int q_heads, double scale,
               LayerStream tokens, LayerQueries layer_queries);

  int layer;
  std::string where;  // "PATH: layer N", for messages
  const TokenSplit* split;
  LayerInfo info;
  int num_kv_heads, num_q_heads;
  double softmax_scale;  // the capture's, else 1 / sqrt(head_dim)
  std::shared_ptr<const Rotation> rotation;
  std::shared_ptr<const Sketch> sketch;  // null unless keys are in prod mode
  LayerStream stream;
  LayerQueries queries;
  Progress progress;
  const ProcessGroup* team = &one_process();  // who works on this layer together

  bool held_out(const TokenBlock& block) const { return split != nullptr && split->held_out(block.begin); }
  std::size_t head_dim() const { return static_cast<std::size_t>(info.head_dim); }
  std::size_t kv_heads() const { return static_cast<std::size_t>(num_kv_heads); }
};

}  // namespace tq
