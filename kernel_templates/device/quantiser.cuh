#pragma once

#include "device/ptx.cuh"
#include "shared/params.h"

// The table of a Lloyd-Max quantiser in shared memory, one copy a lane, so that no two lanes meet in a bank.
namespace tq::gpu {

template <int kBits>
struct Quantiser {
  static constexpr int kCopies = 16;  // 8-byte reads are served half a warp at a time
  struct Cell {
    float boundary;  // the first one not below the cell
    u32 base;        // boundaries below the cell
  };
  struct Storage {
    Cell cells[kGridCells][kCopies];
    float centroids[1 << kBits][kLanes];
    float boundaries[16];
  };

  const Storage& table;
  float grid_scale, grid_offset;
  int steps;

  // All threads of the block; the caller synchronises.
  TQ_DEVICE static void fill(Storage& storage, const QuantiserTable& from) {
    for (int i = threadIdx.x; i < kGridCells * kCopies; i += blockDim.x) {
      const u32 base = from.base[i / kCopies];
      storage.cells[i / kCopies][i % kCopies] = {from.boundaries[base], base};
    }
    for (int i = threadIdx.x; i < (1 << kBits) * kLanes; i += blockDim.x)
      storage.centroids[i / kLanes][i % kLanes] = from.centroids[i / kLanes];
    for (int i = threadIdx.x; i < 16; i += blockDim.x) storage.boundaries[i] = from.boundaries[i];
  }

  TQ_DEVICE Quantiser(const Storage& storage, const QuantiserTable& from)
      : table(storage), grid_scale(from.grid_scale), grid_offset(from.grid_offset), steps(from.steps) {}

  // How many boundaries lie below y: the index of its cell, a tie going to the lower one. The grid cell is a
  // non-decreasing function of y evaluated alike for boundaries (on the host) and for y, so boundaries of
  // lower grid cells are below y and those of higher ones are not; the few in the same one are compared.
  // kOneStep: `steps` is 1, as it is but for tables with boundaries much closer than others.
  template <bool kOneStep>
  TQ_DEVICE u32 index(float y) const {
    // Saturates: what is below 0, and NaN, is 0.
    const u32 raw = __float2uint_rd(fmaf(y, grid_scale, grid_offset));
    const Cell cell = table.cells[min(raw, kGridCells - 1u)][threadIdx.x % kCopies];
    u32 index = cell.base + (y > cell.boundary ? 1 : 0);
    if constexpr (!kOneStep) {
#pragma unroll 1
      for (int k = 1; k < steps; ++k)
        index += y > table.boundaries[min(cell.base + static_cast<u32>(k), 15u)] ? 1 : 0;
    }
    return index;
  }
  TQ_DEVICE float centroid(u32 index) const { return table.centroids[index][threadIdx.x % kLanes]; }
};

}  // namespace tq::gpu
