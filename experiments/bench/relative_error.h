#pragma once

#include <cmath>
#include <span>

namespace tq::bench {

// ||is - should|| / ||should||
inline double relative_error(std::span<const float> is, std::span<const double> should) {
  double difference = 0, norm = 0;
  for (std::size_t i = 0; i < should.size(); ++i) {
    const double x = static_cast<double>(is[i]) - should[i];
    difference += x * x;
    norm += should[i] * should[i];
  }
  return std::sqrt(difference / norm);
}

// Written so that a NaN stays.
inline void keep_larger(double& worst, double value) {
  if (!(value <= worst)) worst = value;
}

}  // namespace tq::bench
