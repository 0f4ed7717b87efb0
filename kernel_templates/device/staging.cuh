#pragma once

#include "device/tile_words.cuh"

// Where a warp reads its next tile: a copy in shared memory that was started while the tile before was worked
// on, or, unstaged, the tile itself. A warp copies for itself alone, so no warp waits for another.
//
// Staged tiles are read in the order in which they were started, of `kInFlight` at any time: the caller
// starts as many before the first `wait`, then one after every `release`.
namespace tq::gpu {

// Where things lie in a block's shared memory (shared/launch.h).
template <int kWork, int kQueries, int kImage>
struct BlockMemory {
  static constexpr bool kStaged = kImage > 0;
  char *begin, *work;
  TQ_DEVICE BlockMemory() : begin(reinterpret_cast<char*>(dynamic_shared)), work(begin) {
    if constexpr (kStaged) {
      const u32 from = shared_address(begin);
      if (from > kSystemShared) __trap();
      work = begin + (kTablesAlignment - from);
    }
  }
  TQ_DEVICE char* queries() const { return kStaged ? begin : work + kWork; }
  TQ_DEVICE u8* image(int warp) const {
    constexpr int kLow = kStaged ? low_images(kQueries, kImage) : 0;
    return reinterpret_cast<u8*>(warp < kLow ? begin + kQueries + warp * kImage
                                             : work + kWork + (warp - kLow) * kImage);
  }
};

// kInFlight: 0 where tiles are not staged.
template <int kInFlight>
struct TileStream {
  static constexpr bool kStaged = kInFlight > 0;
  // Starts copying `kBytes` (a multiple of 16) to `image`; without a tile, an empty turn that keeps the
  // count.
  template <int kBytes>
  TQ_DEVICE static void start(u8* image, const u8* tile, int lane) {
    if constexpr (kStaged) {
      static_assert(kBytes % 16 == 0);
      if (tile != nullptr) {
#pragma unroll
        for (int i = 0; i < kBytes / 512; ++i)
          copy_async16(image + i * 512 + lane * 16, tile + i * 512 + lane * 16);
        constexpr int kRest = kBytes % 512 / 16;
        if (kRest > 0 && lane < kRest)
          copy_async16(image + kBytes / 512 * 512 + lane * 16, tile + kBytes / 512 * 512 + lane * 16);
      }
      commit_copies();
    }
  }
  // The oldest copy has arrived, and all lanes may read all of it.
  TQ_DEVICE static void wait() {
    if constexpr (kStaged) {
      wait_copies<kInFlight - 1>();
      __syncwarp();
    }
  }
  // All lanes have read it.
  TQ_DEVICE static void release() {
    if constexpr (kStaged) __syncwarp();
  }
};

}  // namespace tq::gpu
