#pragma once

#include <memory>
#include <string>

#include "jit/kernel.h"

namespace tq {

// "encode_keys d128, grid 8x1x1, block 256x1x1, 1024 bytes of dynamic shared memory"
std::string describe_launch(const std::string& label, const LaunchShape& shape);

// What this thread launched last: a fault of a kernel shows only at a later call.
void record_launch(std::shared_ptr<const std::string> label, const LaunchShape& shape);
// As describe_launch(); empty before the first launch.
std::string last_launch();

}  // namespace tq
