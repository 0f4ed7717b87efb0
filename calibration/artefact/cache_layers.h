#pragma once

#include <vector>

#include "calibration/artefact/artefact.h"
#include "core/cache_layer.h"

namespace tq {

// The layers of a KvCache that stores what the artefact describes, one a layer of it, in its order. Layers of
// one head_dim share the artefact's rotation and sketch, so their codecs are cheap. Throws InputError as
// validate(Artefact) does.
std::vector<CacheLayer> cache_layers(const Artefact& artefact);

}  // namespace tq
