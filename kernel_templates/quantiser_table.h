#pragma once

#include "core/codebook.h"
#include "shared/params.h"

namespace tq::gpu {

// The search table of a codebook of at most 4 bits (device/quantiser.cuh). Throws UsageError for more.
QuantiserTable quantiser_table(const Codebook& codebook);

// The grid cell of y, as the device computes it.
int grid_cell(const QuantiserTable& table, float y);

}  // namespace tq::gpu
