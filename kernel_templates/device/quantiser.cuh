#pragma once

#include "device/ptx.cuh"
#include "shared/params.h"

// The table of a Lloyd-Max quantiser in shared memory, one copy a lane, so that no two lanes meet in a bank.
namespace tq::gpu {

template <int kBits>
struct Quantiser {
  static constexpr int kCopies = 16;  // 8-byte reads are served half a warp at a time
  struct alignas(8) Cell {
    float boundary;  // the first one not below the cell
    u32 base;        // boundaries below the cell
  };
  static constexpr u32 kCellBytes = kCopies * sizeof(Cell);
  struct Storage {
    Cell cells[kGridCells][kCopies];
    float centroids[1 << kBits][kLanes];
    float boundaries[16];
  };

  const Storage& table;
  u32 cells;  // address of the lane's copy of cell 0
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
      : table(storage),
        cells(shared_address(&storage.cells[0][threadIdx.x % kCopies])),
        grid_scale(from.grid_scale),
        grid_offset(from.grid_offset),
        steps(from.steps) {}

  // Where y / unit lies on the grid, `scale` being grid_scale / unit. NaN lies at 0.
  TQ_DEVICE float coordinate(float y, float scale) const { return fma_saturate(y, scale, grid_offset); }

  // How many boundaries lie below a grid coordinate: the index of its quantiser cell, a tie going to the
  // lower one. The grid cell is a non-decreasing function of the coordinate, evaluated alike for boundaries
  // (on the host) and here, so boundaries of lower grid cells are below and those of higher ones are not; the
  // few in the same one are compared. kOneStep: `steps` is 1, as it is but for tables with boundaries much
  // closer than others.
  template <bool kOneStep>
  TQ_DEVICE u32 index(float coordinate) const {
    // The sum's last place is a cell; what stands above it has left the 32 bits once cells are bytes.
    constexpr float kOrigin = static_cast<float>(1 << 23) / kGridSteps;
    static_assert(kGridSteps == 64 && kCellBytes == 128);  // the origin's bits, 0x48000000, are 0 times 128
    u32 cell[2];
    load_shared<2>(__float_as_uint(kOrigin + coordinate) * kCellBytes + cells, cell);
    const u32 base = cell[1];
    u32 index = count_greater(base, coordinate, __uint_as_float(cell[0]));
    if constexpr (!kOneStep) {
#pragma unroll 1
      for (int k = 1; k < steps; ++k)
        index = count_greater(index, coordinate, table.boundaries[min(base + static_cast<u32>(k), 15u)]);
    }
    return index;
  }
  TQ_DEVICE float centroid(u32 index) const { return table.centroids[index][threadIdx.x % kLanes]; }
};

// c^2 + c'^2 of two codes: one read instead of two.
template <int kBits>
struct SquareSums {
  using Storage = float[1 << 2 * kBits][kLanes];
  u32 sums;  // address of the lane's copy

  // All threads of the block; the caller synchronises.
  TQ_DEVICE static void fill(Storage& storage, const QuantiserTable& from) {
    for (int i = threadIdx.x; i < (1 << 2 * kBits) * kLanes; i += blockDim.x) {
      const int codes = i / kLanes;
      const float a = from.centroids[codes % (1 << kBits)], b = from.centroids[codes >> kBits];
      storage[codes][i % kLanes] = fmaf(a, a, b * b);
    }
  }
  TQ_DEVICE explicit SquareSums(const Storage& storage)
      : sums(shared_address(&storage[0][threadIdx.x % kLanes])) {}

  TQ_DEVICE float of(u32 low, u32 high) const {
    u32 sum[1];
    load_shared<1>((low + (high << kBits)) * (kLanes * 4) + sums, sum);
    return __uint_as_float(sum[0]);
  }
};

}  // namespace tq::gpu
