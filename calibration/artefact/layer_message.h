#pragma once

#include "calibration/artefact/artefact.h"
#include "calibration/message.h"

namespace tq {

// A layer to and from other processes of the same job.
void pack(const LayerArtefact& layer, MessageWriter& message);
LayerArtefact unpack_layer(MessageReader& message);

}  // namespace tq
