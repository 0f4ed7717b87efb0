#include "calibration/codecs/bitshift_trellis.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "calibration/codecs/bitshift_trellis.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include <utility>

#ifndef TQ_CALIBRATION_CODECS_BITSHIFT_TRELLIS_
#define TQ_CALIBRATION_CODECS_BITSHIFT_TRELLIS_
namespace tq {

// Arrays by state end in this many entries more: with fewer states than lanes, the rest is computed as well.
inline constexpr std::size_t kTrellisPadding = 16;

}  // namespace tq
#endif

HWY_BEFORE_NAMESPACE();
namespace tq::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using Float = hn::CappedTag<float, kTrellisPadding>;
using Int = hn::RebindToSigned<Float>;
using Byte = hn::Rebind<std::uint8_t, Float>;
constexpr std::size_t kLanes = hn::MaxLanes(Float());

// Costs of the predecessors of `kLanes` consecutive states, each of which 2^B of them share.
template <int B, typename Indices>
HWY_INLINE hn::Vec<Float> predecessors(const float* HWY_RESTRICT costs, const Indices& spread) {
  if constexpr (kLanes <= (std::size_t{1} << B)) {
    return hn::Set(Float(), *costs);
  } else {
    return hn::TableLookupLanes(hn::LoadU(Float(), costs), spread);
  }
}

// The costs of the best paths into every state, place by place. Returns where the last ones are: in `costs`
// or in `next`.
template <int B>
const float* extend_paths(const float* HWY_RESTRICT levels, std::size_t states, const float* HWY_RESTRICT x,
                          std::size_t n, float* costs, float* next, std::uint8_t* HWY_RESTRICT oldest) {
  const std::size_t stride = states >> B;
  const auto spread = hn::IndicesFromVec(Float(), hn::ShiftRight<B>(hn::Iota(Int(), 0)));
  for (std::size_t t = 0; t < n; ++t, oldest += states) {
    const auto value = hn::Set(Float(), x[t]);
    for (std::size_t state = 0; state < states; state += kLanes) {
      const auto cost_through = [&](std::size_t symbol) HWY_ATTR {
        const auto error = hn::Sub(hn::LoadU(Float(), levels + symbol * states + state), value);
        return hn::Add(predecessors<B>(costs + symbol * stride + (state >> B), spread),
                       hn::Mul(error, error));
      };
      auto best = cost_through(0);
      auto best_symbol = hn::Zero(Int());
      for (int symbol = 1; symbol < (1 << B); ++symbol) {
        const auto cost = cost_through(static_cast<std::size_t>(symbol));
        const auto better = hn::Lt(cost, best);
        best = hn::IfThenElse(better, cost, best);
        best_symbol = hn::IfThenElse(hn::RebindMask(Int(), better), hn::Set(Int(), symbol), best_symbol);
      }
      hn::StoreU(best, Float(), next + state);
      hn::StoreU(hn::DemoteTo(Byte(), best_symbol), Byte(), oldest + state);
    }
    std::swap(costs, next);
  }
  return costs;
}

const float* extend_paths_of(int symbol_bits, const float* levels, std::size_t states, const float* x,
                             std::size_t n, float* costs, float* next, std::uint8_t* oldest) {
  switch (symbol_bits) {
    case 1:
      return extend_paths<1>(levels, states, x, n, costs, next, oldest);
    case 2:
      return extend_paths<2>(levels, states, x, n, costs, next, oldest);
    case 3:
      return extend_paths<3>(levels, states, x, n, costs, next, oldest);
    default:
      return extend_paths<4>(levels, states, x, n, costs, next, oldest);
  }
}

}  // namespace tq::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include <algorithm>
#include <cmath>
#include <stdexcept>

#include "core/random.h"

namespace tq {
namespace {
HWY_EXPORT(extend_paths_of);
}  // namespace

BitshiftTrellis::BitshiftTrellis(int symbol_bits, int window_bits, std::span<const float> levels)
    : symbol_bits_(symbol_bits), window_bits_(window_bits), levels_(levels.begin(), levels.end()) {
  if (symbol_bits < 1 || symbol_bits > 4 || window_bits < 2 * symbol_bits || window_bits > 16 ||
      levels.size() != std::size_t{1} << window_bits) {
    throw std::invalid_argument("no bitshift trellis of that size");
  }
  levels_.resize(levels_.size() + kTrellisPadding);
}

void BitshiftTrellis::windows_of_ring(const std::uint8_t* symbols, std::size_t n,
                                      std::uint16_t* windows) const {
  const std::uint32_t mask = (1u << window_bits_) - 1;
  const std::size_t seen = static_cast<std::size_t>((window_bits_ + symbol_bits_ - 1) / symbol_bits_);
  std::uint32_t window = 0;
  for (std::size_t t = n - seen; t < n; ++t) window = window << symbol_bits_ | symbols[t];
  for (std::size_t t = 0; t < n; ++t) {
    window = (window << symbol_bits_ | symbols[t]) & mask;
    windows[t] = static_cast<std::uint16_t>(window);
  }
}

std::vector<float> gaussian_levels(int symbol_bits, int window_bits) {
  constexpr std::uint32_t kGolden = 0x9e3779b9;  // 2^32 / golden ratio
  const int state_bits = window_bits - symbol_bits;
  const std::uint32_t windows = 1u << window_bits, states = 1u << state_bits, symbols = 1u << symbol_bits;
  const std::uint32_t factor = kGolden >> (32 - state_bits) | 1;
  const double deviation = std::sqrt(1 - 1.0 / (symbols * symbols));
  std::vector<float> levels(windows);
  for (std::uint32_t window = 0; window < windows; ++window) {
    const std::uint32_t state = window >> symbol_bits, oldest = window >> state_bits;
    const std::uint32_t cell = (window + 2 * state + oldest) % symbols;
    const std::uint32_t place = state * factor % states;
    levels[window] = static_cast<float>(deviation * normal_quantile((cell * states + place + 0.5) / windows));
  }
  return levels;
}

TrellisSearch::TrellisSearch(const BitshiftTrellis& trellis, std::size_t longest)
    : trellis_(trellis),
      costs_(trellis.states() + kTrellisPadding),
      next_costs_(costs_.size()),
      around_seam_(2 * kOverlap),
      windows_(std::max(longest, around_seam_.size())) {
  oldest_symbols_.resize(windows_.size() * trellis.states() + kTrellisPadding);
}

void TrellisSearch::nearest_path(const float* x, std::size_t n, std::uint32_t from, std::uint32_t to,
                                 std::uint16_t* windows) {
  const std::size_t states = trellis_.states();
  std::fill(costs_.begin(), costs_.end(), from == kAnyState ? 0 : std::numeric_limits<float>::infinity());
  if (from != kAnyState) costs_[from] = 0;
  const float* costs =
      HWY_DYNAMIC_DISPATCH(extend_paths_of)(trellis_.symbol_bits(), trellis_.levels(), states, x, n,
                                            costs_.data(), next_costs_.data(), oldest_symbols_.data());
  if (to == kAnyState) to = static_cast<std::uint32_t>(std::min_element(costs, costs + states) - costs);
  const int state_bits = trellis_.window_bits() - trellis_.symbol_bits();
  for (std::size_t t = n; t-- > 0;) {
    const std::uint32_t window =
        static_cast<std::uint32_t>(oldest_symbols_[t * states + to]) << state_bits | to;
    windows[t] = static_cast<std::uint16_t>(window);
    to = window >> trellis_.symbol_bits();
  }
}

void TrellisSearch::near_ring(const float* x, std::size_t n, std::uint8_t* symbols) {
  for (std::size_t i = 0; i < kOverlap; ++i) {
    around_seam_[kOverlap + i] = x[i % n];
    around_seam_[kOverlap - 1 - i] = x[n - 1 - i % n];
  }
  nearest_path(around_seam_.data(), 2 * kOverlap, kAnyState, kAnyState, windows_.data());
  const std::uint32_t seam = static_cast<std::uint32_t>(windows_[kOverlap]) >> trellis_.symbol_bits();
  nearest_path(x, n, seam, seam, windows_.data());
  const unsigned mask = (1u << trellis_.symbol_bits()) - 1;
  for (std::size_t t = 0; t < n; ++t) symbols[t] = static_cast<std::uint8_t>(windows_[t] & mask);
}

}  // namespace tq
#endif
