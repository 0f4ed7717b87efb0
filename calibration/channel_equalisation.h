#pragma once

#include <memory>
#include <vector>

#include "calibration/cache_backend.h"
#include "calibration/layer_stream.h"

namespace tq {

// Per-channel equalisation of values before their groups are quantised: a channel much larger than its
// neighbours sets the step of a whole group. Every coordinate is divided by its channel's scale, and
// multiplied by it after decoding.
//
// The scales of a layer, one list of head_dim a KV head: the root mean square of the channel over all tokens,
// rounded to binary16, in which it is stored (2 head_dim bytes a KV head, none a token). 1 where that is 0.
std::vector<std::vector<float>> fit_channel_scales(LayerStream& stream, int kv_heads, int head_dim);

// Values of `codec` after equalisation with one head's scales, all positive and finite.
std::shared_ptr<const ValueBackend> equalised_values(std::shared_ptr<const ValueBackend> codec,
                                                     std::vector<float> scales);

}  // namespace tq
