#include "kernel_templates/quantiser_table.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "core/error.h"

namespace tq::gpu {

int grid_cell(const QuantiserTable& table, float y) {
  const float cell = std::floor(std::fmaf(y, table.grid_scale, table.grid_offset));
  return static_cast<int>(std::clamp(cell, 0.0f, static_cast<float>(kGridCells - 1)));
}

QuantiserTable quantiser_table(const Codebook& codebook) {
  if (codebook.bits > 4) {
    throw UsageError("a table of {} bits has no GPU kernels: they take 1 to 4", codebook.bits);
  }
  QuantiserTable table{};
  std::vector<float> inner;
  for (std::size_t i = 1; i + 1 < codebook.boundaries.size(); ++i)
    inner.push_back(static_cast<float>(codebook.boundaries[i]));
  std::fill(std::begin(table.boundaries), std::end(table.boundaries), std::numeric_limits<float>::infinity());
  std::copy(inner.begin(), inner.end(), table.boundaries);
  for (std::size_t i = 0; i < codebook.centroids.size(); ++i)
    table.centroids[i] = static_cast<float>(codebook.centroids[i]);

  // The inner boundaries share cells 1 .. 62; cell 0 and 63 take what lies outside.
  const float width = inner.back() - inner.front();
  // Boundaries may be closer than the reciprocal of the largest float.
  table.grid_scale = width > 0 ? std::min(static_cast<float>(kGridCells - 3) / width, 1e30f) : 1.0f;
  table.grid_offset = 1.0f - inner.front() * table.grid_scale;
  int held[kGridCells] = {};
  for (const float boundary : inner) ++held[grid_cell(table, boundary)];
  int below = 0;
  for (int cell = 0; cell < kGridCells; ++cell) {
    table.base[cell] = static_cast<u8>(below);
    below += held[cell];
    table.steps = std::max(table.steps, held[cell]);
  }
  return table;
}

}  // namespace tq::gpu
