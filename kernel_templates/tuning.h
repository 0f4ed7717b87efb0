#pragma once

#include <compare>
#include <map>
#include <string>

#include "shared/spec.h"

namespace tq {

// How a launch is cut into blocks: its speed depends on it, its result only by rounding.
struct BlockChoice {
  int warps = 0, stages = 0;  // as in gpu::AttendSpec
  int blocks = 0;             // of the launch, at most; 0: what an untuned device takes
  friend bool operator==(const BlockChoice&, const BlockChoice&) = default;
};

// Whether any kernel could be launched so: 4, 8, 12 or 16 warps, 0 to 4 stages, 0 to kMostTunedBlocks blocks.
inline constexpr int kMostTunedBlocks = 1 << 14;
bool is_sensible(const BlockChoice& choice);

// Of one launch. rows: KV heads x parts of their query heads x sequences; tiles: of the longest row.
struct LaunchSize {
  long long rows, tiles;
};

// Launches of one kernel and of about one size share a choice.
struct TuningKey {
  std::string kernel;                 // kernels.h's blockless_label()
  int log2_rows = 0, log2_tiles = 0;  // rounded
  friend auto operator<=>(const TuningKey&, const TuningKey&) = default;
};
TuningKey tuning_key(const gpu::AttendSpec& spec, const LaunchSize& size);
TuningKey tuning_key(const gpu::ScoreSpec& spec, const LaunchSize& size);

// What `tq tune` found fastest on a device. Empty: an untuned one.
class Tuning {
 public:
  void set(const TuningKey& key, const BlockChoice& choice) { choices_[key] = choice; }
  const std::map<TuningKey, BlockChoice>& choices() const { return choices_; }

  // For a spec whose warps and stages are not read: the choice of launches of its size, else of the nearest
  // size that was tuned, rows and tiles together a factor of 4 away at most; without one that fits into
  // `shared_limit` bytes of shared memory, with_block()'s (kernels.h).
  BlockChoice choose(const gpu::AttendSpec& spec, const LaunchSize& size, int shared_limit) const;
  BlockChoice choose(const gpu::ScoreSpec& spec, const LaunchSize& size, int shared_limit) const;

 private:
  std::map<TuningKey, BlockChoice> choices_;
};

// Whether a kernel of the spec can have this block.
bool fits(gpu::AttendSpec spec, const BlockChoice& choice, int shared_limit);
bool fits(gpu::ScoreSpec spec, const BlockChoice& choice, int shared_limit);

}  // namespace tq
