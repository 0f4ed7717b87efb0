#pragma once

#include <array>
#include <cstdint>

namespace tq {

// A sum of doubles without rounding: a fixed-point number of 34 limbs of 64 bits, each holding 32 bits of the
// value and 31 bits of carries (Kulisch's accumulator). Adding and merging commute and associate bit for bit,
// so a statistic does not depend on how its samples were split between threads, blocks or processes.
class ExactSum {
 public:
  // Finite values with |x| >= 2^-500 or 0 (smaller ones are dropped) and below 2^500.
  void add(double x);
  void merge(const ExactSum& other);
  // The exact sum, rounded to double.
  double value() const;

 private:
  static constexpr int kLowestExponent = -560;  // weight of limb 0 is 2^-560
  static constexpr int kLimbs = 34;             // 34 * 32 = 1088 bits, up to 2^528
  void carry();

  std::array<std::int64_t, kLimbs> limbs_{};
  std::uint32_t additions_ = 0;
};

}  // namespace tq
