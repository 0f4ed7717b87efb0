#pragma once

#include <vector>

#include "core/cache_layer.h"

namespace tq::c_api {

// The layers of an artefact's file. Throws as read_artefact() does.
std::vector<CacheLayer> read_layers(const char* path);

}  // namespace tq::c_api
