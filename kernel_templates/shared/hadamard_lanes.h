#pragma once

#include "shared/types.h"

// How many lanes hold a vector of order d = m 2^k in registers (device/hadamard.cuh), m = 1 or one Paley
// factor.
namespace tq::gpu {

TQ_SHARED int odd_part(int d) { return d % 2 == 0 ? odd_part(d / 2) : d; }
TQ_SHARED int paley_order(int d) { return odd_part(d) == 1 ? 1 : 4 * odd_part(d); }
// Few, since a butterfly between lanes costs a shuffle; more where a lane's share would not fit.
TQ_SHARED int hadamard_lanes(int d) {
  if (paley_order(d) == 1) return d <= 32 ? d / 8 : d <= 128 ? 4 : d / 32;
  const int sylvester = d / paley_order(d);
  return sylvester < kLanes ? sylvester : kLanes;
}

}  // namespace tq::gpu
