#pragma once

#include <hwy/aligned_allocator.h>
#include <omp.h>

#include <algorithm>
#include <cstddef>

namespace tq {

// The unit of vectorised work: 16 vectors transposed, so that coordinate j of all of them is one contiguous
// group of 16 floats. Every step (rotation, index search, packing) then runs down the coordinates with one
// vector a SIMD lane: no shuffles, one code path for every d and every bit width, and sums whose order
// depends on neither the lane count nor the thread count.
inline constexpr std::size_t kTileRows = 16;

// What one thread takes at a time.
inline constexpr std::size_t kBlockRows = 16 * kTileRows;

using TileBuffer = hwy::AlignedFreeUniquePtr<float[]>;
inline TileBuffer make_tile(std::size_t coordinates) {
  return hwy::AllocateAligned<float>(std::max<std::size_t>(coordinates, 1) * kTileRows);
}

// Threads for `tasks` pieces of work: never more than there are pieces, since waking a thread for nothing
// costs more than a small piece.
inline int team_size(std::size_t tasks) {
  return static_cast<int>(std::clamp<std::size_t>(tasks, 1, static_cast<std::size_t>(omp_get_max_threads())));
}

// Calls body(begin, end) for consecutive blocks of rows, in parallel. The blocks do not depend on the thread
// count.
template <typename Body>
void parallel_blocks(std::size_t rows, const Body& body) {
  const std::size_t blocks = (rows + kBlockRows - 1) / kBlockRows;
#pragma omp parallel for schedule(static) num_threads(team_size(blocks))
  for (std::size_t block = 0; block < blocks; ++block) {
    body(block * kBlockRows, std::min(rows, (block + 1) * kBlockRows));
  }
}

}  // namespace tq
