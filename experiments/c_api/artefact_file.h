#pragma once

#include "calibration/artefact/artefact.h"

namespace tq::c_api {

// read_artefact(), from any thread.
Artefact read_artefact_file(const char* path);

}  // namespace tq::c_api
