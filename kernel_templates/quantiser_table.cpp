#include "kernel_templates/quantiser_table.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <vector>

#include "core/error.h"

namespace tq::gpu {

float grid_coordinate(const QuantiserTable& table, float y) {
  return std::clamp(std::fmaf(y, table.grid_scale, table.grid_offset), 0.0f, 1.0f);
}

int grid_cell(float coordinate) {
  // The sum's last place is a cell.
  constexpr float kOrigin = static_cast<float>(1 << 23) / kGridSteps;
  return static_cast<int>(std::bit_cast<std::uint32_t>(kOrigin + coordinate) -
                          std::bit_cast<std::uint32_t>(kOrigin));
}

QuantiserTable quantiser_table(const Codebook& codebook) {
  if (codebook.bits > 4) {
    throw UsageError("a table of {} bits has no GPU kernels: they take 1 to 4", codebook.bits);
  }
  QuantiserTable table{};
  std::vector<float> inner;
  for (std::size_t i = 1; i + 1 < codebook.boundaries.size(); ++i)
    inner.push_back(static_cast<float>(codebook.boundaries[i]));
  for (std::size_t i = 0; i < codebook.centroids.size(); ++i)
    table.centroids[i] = static_cast<float>(codebook.centroids[i]);

  // The inner boundaries share cells 1 .. 63; cells 0 and 64 take what lies outside.
  constexpr float kCell = 1.0f / kGridSteps;
  const float width = inner.back() - inner.front();
  // A finer grid would have an offset that float32 rounds by a good part of a cell.
  constexpr float kFinest = 65536;
  table.grid_scale = width > 0 ? std::min((1 - 2 * kCell) / width, kFinest) : 1.0f;
  table.grid_offset = kCell - inner.front() * table.grid_scale;
  std::fill(std::begin(table.boundaries), std::end(table.boundaries), 2.0f);
  int held[kGridCells] = {};
  for (std::size_t i = 0; i < inner.size(); ++i) {
    table.boundaries[i] = grid_coordinate(table, inner[i]);
    ++held[grid_cell(table.boundaries[i])];
  }
  int below = 0;
  for (int cell = 0; cell < kGridCells; ++cell) {
    table.base[cell] = static_cast<u8>(below);
    below += held[cell];
    table.steps = std::max(table.steps, held[cell]);
  }
  return table;
}

}  // namespace tq::gpu
