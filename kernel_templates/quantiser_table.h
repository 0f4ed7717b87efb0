#pragma once

#include "core/codebook.h"
#include "shared/params.h"

namespace tq::gpu {

// The search table of a codebook of at most 4 bits (device/quantiser.cuh). Throws UsageError for more.
QuantiserTable quantiser_table(const Codebook& codebook);

// Where y lies on the grid and the cell of that place, as the device computes them.
float grid_coordinate(const QuantiserTable& table, float y);
int grid_cell(float coordinate);

}  // namespace tq::gpu
