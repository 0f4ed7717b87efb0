#include "calibration/fit_alpha.h"

#include <algorithm>
#include <cmath>

#include "core/codebook.h"
#include "core/error.h"

namespace tq {
namespace {

void require_residuals(bool some, AlphaTarget target, std::string_view where) {
  if (!some) {
    throw InputError("{}: no residual, so no alpha for {} can be fitted; use --alpha unbiased", where,
                     to_string(target));
  }
}

double quotient(double numerator, double denominator) {
  return std::clamp(numerator / denominator, 0.0, 2.0);
}

double golden_section_maximum(const std::vector<ResidualProducts>& sample, int head_dim) {
  constexpr double kRatio = 0.61803398874989484820, kTolerance = 1e-6;
  double low = 0, high = 2;
  double left = high - kRatio * (high - low), right = low + kRatio * (high - low);
  double at_left = mean_cosine(sample, left, head_dim), at_right = mean_cosine(sample, right, head_dim);
  while (high - low > kTolerance) {
    if (at_left > at_right) {
      high = right;
      right = left;
      at_right = at_left;
      left = high - kRatio * (high - low);
      at_left = mean_cosine(sample, left, head_dim);
    } else {
      low = left;
      left = right;
      at_left = at_right;
      right = low + kRatio * (high - low);
      at_right = mean_cosine(sample, right, head_dim);
    }
  }
  return 0.5 * (low + high);
}

}  // namespace

double mean_cosine(const std::vector<ResidualProducts>& sample, double alpha, int head_dim) {
  double sum = 0;
  for (const ResidualProducts& p : sample) {
    // In units of ||x||: y^ = c + beta g and <y,g> = <c,g> + <r,g>.
    const double beta = alpha * static_cast<double>(p.residual_norm) / head_dim;
    const double projection = static_cast<double>(p.yc) + beta * static_cast<double>(p.cg + p.rg);
    const double square = static_cast<double>(p.cc) + 2 * beta * static_cast<double>(p.cg) +
                          beta * beta * static_cast<double>(p.gg);
    if (square > 0) sum += projection / std::sqrt(square);
  }
  return sum / static_cast<double>(sample.size());
}

double fit_alpha(AlphaTarget target, const ResidualStatistics& statistics, int head_dim,
                 std::string_view where) {
  switch (target) {
    case AlphaTarget::mse:
      require_residuals(statistics.energy() > 0, target, where);
      return quotient(head_dim * statistics.projected(), statistics.energy());
    case AlphaTarget::score:
      require_residuals(statistics.score_energy() > 0, target, where);
      return quotient(statistics.score_projected(), statistics.score_energy());
    case AlphaTarget::cos: {
      const std::vector<ResidualProducts> sample = statistics.sample();
      require_residuals(!sample.empty(), target, where);
      return golden_section_maximum(sample, head_dim);
    }
    case AlphaTarget::unbiased:
      break;
  }
  return kUnbiasedAlpha;
}

}  // namespace tq
