#include "calibration/exact_sum.h"

#include <cmath>

namespace tq {

void ExactSum::add(double x) {
  int exponent;
  const double fraction = std::frexp(x, &exponent);  // x = fraction 2^exponent, |fraction| in [1/2, 1)
  if (fraction == 0 || exponent < -500 || exponent > 500) return;
  // x = mantissa 2^(exponent - 53), spread over three limbs.
  const std::int64_t mantissa = static_cast<std::int64_t>(std::ldexp(fraction, 53));
  const int position = exponent - 53 - kLowestExponent;
  const auto limb = static_cast<std::size_t>(position / 32);
  __extension__ using Wide = __int128;
  const Wide shifted = static_cast<Wide>(mantissa < 0 ? -mantissa : mantissa) << (position % 32);
  const std::int64_t sign = mantissa < 0 ? -1 : 1;
  constexpr std::int64_t kMask = 0xffffffff;
  limbs_[limb] += sign * static_cast<std::int64_t>(shifted & kMask);
  limbs_[limb + 1] += sign * static_cast<std::int64_t>((shifted >> 32) & kMask);
  limbs_[limb + 2] += sign * static_cast<std::int64_t>(shifted >> 64);
  if (++additions_ == (1u << 30)) carry();
}

void ExactSum::merge(const ExactSum& other) {
  ExactSum carried = other;
  carried.carry();
  carry();
  for (std::size_t i = 0; i < limbs_.size(); ++i) limbs_[i] += carried.limbs_[i];
  additions_ = 2;
}

// Leaves every limb but the last in [0, 2^32): one representation a value.
void ExactSum::carry() {
  std::int64_t over = 0;
  for (std::size_t i = 0; i + 1 < limbs_.size(); ++i) {
    const std::int64_t total = limbs_[i] + over;
    over = total >> 32;
    limbs_[i] = total - over * (std::int64_t{1} << 32);
  }
  limbs_.back() += over;
  additions_ = 1;
}

double ExactSum::value() const {
  ExactSum carried = *this;
  carried.carry();
  const bool negative = carried.limbs_.back() < 0;
  if (negative) {
    for (std::int64_t& limb : carried.limbs_) limb = -limb;
    carried.carry();
  }
  // From the highest limb down; three limbs below the leading one hold more bits than a double.
  double sum = 0;
  for (std::size_t i = carried.limbs_.size(); i-- > 0;) {
    sum += std::ldexp(static_cast<double>(carried.limbs_[i]), static_cast<int>(i) * 32 + kLowestExponent);
  }
  return negative ? -sum : sum;
}

}  // namespace tq
