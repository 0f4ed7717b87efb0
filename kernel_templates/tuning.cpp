#include "kernel_templates/tuning.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <limits>

#include "kernel_templates/kernels.h"
#include "shared/launch.h"

namespace tq {
namespace {

constexpr int kFarthest = 2;  // powers of two

int rounded_log2(long long x) {
  return static_cast<int>(std::lround(std::log2(static_cast<double>(std::max(1LL, x)))));
}

template <typename Spec>
TuningKey key_of(const Spec& spec, const LaunchSize& size) {
  return {gpu::blockless_label(spec), rounded_log2(size.rows), rounded_log2(size.tiles)};
}

int distance(const TuningKey& a, const TuningKey& b) {
  return std::abs(a.log2_rows - b.log2_rows) + std::abs(a.log2_tiles - b.log2_tiles);
}

template <typename Spec>
BlockChoice choose_from(const std::map<TuningKey, BlockChoice>& choices, const Spec& spec,
                        const LaunchSize& size, int shared_limit) {
  const Spec untuned = gpu::with_block(spec, shared_limit);
  BlockChoice chosen{untuned.warps, untuned.stages, 0};
  if (choices.empty()) return chosen;
  const TuningKey key = key_of(spec, size);
  int nearest = kFarthest + 1;
  constexpr int kLeast = std::numeric_limits<int>::min();
  for (auto at = choices.lower_bound({key.kernel, kLeast, kLeast});
       at != choices.end() && at->first.kernel == key.kernel; ++at) {
    if (distance(at->first, key) < nearest && fits(spec, at->second, shared_limit)) {
      nearest = distance(at->first, key);
      chosen = at->second;
    }
  }
  return chosen;
}

}  // namespace

bool is_sensible(const BlockChoice& choice) {
  return choice.warps >= 4 && choice.warps <= 16 && choice.warps % 4 == 0 && choice.stages >= 0 &&
         choice.stages <= 4 && choice.blocks >= 0 && choice.blocks <= kMostTunedBlocks;
}

TuningKey tuning_key(const gpu::AttendSpec& spec, const LaunchSize& size) { return key_of(spec, size); }
TuningKey tuning_key(const gpu::ScoreSpec& spec, const LaunchSize& size) { return key_of(spec, size); }

BlockChoice Tuning::choose(const gpu::AttendSpec& spec, const LaunchSize& size, int shared_limit) const {
  return choose_from(choices_, spec, size, shared_limit);
}
BlockChoice Tuning::choose(const gpu::ScoreSpec& spec, const LaunchSize& size, int shared_limit) const {
  return choose_from(choices_, spec, size, shared_limit);
}

bool fits(gpu::AttendSpec spec, const BlockChoice& choice, int shared_limit) {
  spec.warps = choice.warps;
  spec.stages = choice.stages;
  if (!spec.quantised && spec.stages != 0) return false;  // only tiles are staged
  return gpu::attend_shared_bytes(spec) <= shared_limit;
}

bool fits(gpu::ScoreSpec spec, const BlockChoice& choice, int shared_limit) {
  spec.warps = choice.warps;
  spec.stages = choice.stages;
  return gpu::score_shared_bytes(spec) <= shared_limit;
}

}  // namespace tq
