#pragma once

#include <string>

namespace tq {

// Path of the embedded capture, found beside the running program: ../share/turboquant-lab/datasets/sample.
// Throws SystemError when it is not there.
std::string sample_capture_path();

}  // namespace tq
