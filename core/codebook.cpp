#include "core/codebook.h"

#include <algorithm>
#include <boost/math/special_functions/beta.hpp>
#include <cmath>
#include <numbers>

#include "core/error.h"

namespace tq {
namespace {

// In double throughout: long double would cost a factor of ten and buy nothing at 1e-14.
using InDouble = boost::math::policies::policy<boost::math::policies::promote_double<false>>;

// One coordinate of a uniformly random unit vector in R^d: f(y) = C (1 - y^2)^((d-3)/2).
class SphereMarginal {
 public:
  explicit SphereMarginal(int head_dim)
      : d_(head_dim),
        log_c_(std::lgamma(0.5 * d_) - std::lgamma(0.5 * (d_ - 1)) - 0.5 * std::log(std::numbers::pi)) {}

  double density(double y) const {
    return std::fabs(y) >= 1 ? 0 : std::exp(log_c_ + 0.5 * (d_ - 3) * std::log1p(-y * y));
  }
  // P(a < Y < b), without cancellation in either tail.
  double probability(double a, double b) const {
    if (a >= 0) return upper_tail(a) - upper_tail(b);
    if (b <= 0) return upper_tail(-b) - upper_tail(-a);
    return 1 - upper_tail(-a) - upper_tail(b);
  }
  // E(Y; a < Y < b): the antiderivative of t f(t) is -C/(d-1) (1 - t^2)^((d-1)/2).
  double first_moment(double a, double b) const { return tail_moment(a) - tail_moment(b); }

  double conditional_mean(double a, double b) const {
    const double mass = probability(a, b);
    return mass > 0 ? first_moment(a, b) / mass : 0.5 * (a + b);
  }

 private:
  // P(Y > t), t >= 0: Y^2 is Beta(1/2, (d-1)/2).
  double upper_tail(double t) const {
    return t >= 1 ? 0 : 0.5 * boost::math::ibetac(0.5, 0.5 * (d_ - 1), t * t, InDouble());
  }
  double tail_moment(double t) const {
    return std::fabs(t) >= 1 ? 0 : std::exp(log_c_ + 0.5 * (d_ - 1) * std::log1p(-t * t)) / (d_ - 1);
  }

  double d_;
  double log_c_;
};

// Boundaries of the positive half: 0, midpoints, 1.
std::vector<double> half_boundaries(const std::vector<double>& c) {
  std::vector<double> t{0.0};
  for (std::size_t i = 1; i < c.size(); ++i) t.push_back(0.5 * (c[i - 1] + c[i]));
  t.push_back(1.0);
  return t;
}

// Newton step for F_i(c) = E(Y | cell i) - c_i = 0; the Jacobian is tridiagonal because a centroid moves only
// the two boundaries beside it.
std::vector<double> newton_step(const SphereMarginal& marginal, const std::vector<double>& c) {
  const std::size_t n = c.size();
  const std::vector<double> t = half_boundaries(c);
  std::vector<double> lower(n), diagonal(n), upper(n), step(n);
  for (std::size_t i = 0; i < n; ++i) {
    const double mass = marginal.probability(t[i], t[i + 1]);
    const double mean = marginal.conditional_mean(t[i], t[i + 1]);
    const double by_lower = i > 0 ? 0.5 * marginal.density(t[i]) * (mean - t[i]) / mass : 0;
    const double by_upper = i + 1 < n ? 0.5 * marginal.density(t[i + 1]) * (t[i + 1] - mean) / mass : 0;
    lower[i] = by_lower;
    upper[i] = by_upper;
    diagonal[i] = by_lower + by_upper - 1;
    step[i] = c[i] - mean;
  }
  for (std::size_t i = 1; i < n; ++i) {
    const double factor = lower[i] / diagonal[i - 1];
    diagonal[i] -= factor * upper[i - 1];
    step[i] -= factor * step[i - 1];
  }
  step[n - 1] /= diagonal[n - 1];
  for (std::size_t i = n - 1; i-- > 0;) step[i] = (step[i] - upper[i] * step[i + 1]) / diagonal[i];
  return step;
}

bool increasing_within_unit(const std::vector<double>& c) {
  double previous = 0;
  for (const double value : c) {
    if (!(value > previous && value < 1)) return false;
    previous = value;
  }
  return true;
}

}  // namespace

std::vector<double> midpoint_boundaries(const std::vector<double>& centroids) {
  std::vector<double> boundaries{-1.0};
  for (std::size_t i = 1; i < centroids.size(); ++i)
    boundaries.push_back(0.5 * (centroids[i - 1] + centroids[i]));
  boundaries.push_back(1.0);
  return boundaries;
}

void validate(const Codebook& book, std::string_view where) {
  if (book.bits < 1 || book.bits > 8) throw InputError("{}: {} bits; a table has 1 to 8", where, book.bits);
  const std::size_t size = std::size_t{1} << book.bits;
  if (book.centroids.size() != size || book.boundaries.size() != size + 1) {
    throw InputError("{}: {} centroids and {} boundaries; a {}-bit table has {} and {}", where,
                     book.centroids.size(), book.boundaries.size(), book.bits, size, size + 1);
  }
  const auto check_increasing = [&](const std::vector<double>& list, std::string_view name) {
    for (std::size_t i = 0; i < list.size(); ++i) {
      if (!std::isfinite(list[i])) throw InputError("{}: {}[{}] is not finite", where, name, i);
      if (i > 0 && !(static_cast<float>(list[i - 1]) < static_cast<float>(list[i]))) {
        throw InputError("{}: {} are not strictly increasing in float32 at [{}]: {} then {}", where, name, i,
                         list[i - 1], list[i]);
      }
    }
  };
  check_increasing(book.centroids, "centroids");
  check_increasing(book.boundaries, "boundaries");
  for (std::size_t i = 0; i < size; ++i) {
    if (book.centroids[i] < book.boundaries[i] || book.centroids[i] > book.boundaries[i + 1]) {
      throw InputError("{}: centroid {} = {} lies outside its cell [{}, {}]", where, i, book.centroids[i],
                       book.boundaries[i], book.boundaries[i + 1]);
    }
  }
}

void validate(const KeyTables& tables, std::string_view where) {
  validate(tables.codebook, where);
  if (!(tables.qjl_scale >= 0 && tables.qjl_scale <= 2)) {
    throw InputError("{}: qjl_scale {} is outside [0, 2]; it is the bare alpha, not alpha / d", where,
                     tables.qjl_scale);
  }
}

Codebook sphere_codebook(int head_dim, int bits) {
  if (head_dim < 4 || bits < 1 || bits > 8) {
    throw UsageError("no sphere codebook for d = {}, b = {}: d is at least 4 and b is 1 to 8", head_dim,
                     bits);
  }
  const SphereMarginal marginal(head_dim);
  const std::size_t half = std::size_t{1} << (bits - 1);
  // Start from the asymptotically optimal point density f^(1/3) (Panter and Dite), itself the marginal of a
  // sphere of dimension (d - 3) / 3 + 3.
  std::vector<double> c(half);
  for (std::size_t i = 0; i < half; ++i) {
    const double p = (static_cast<double>(i) + 0.5) / static_cast<double>(half);
    c[i] = std::sqrt(boost::math::ibeta_inv(0.5, 0.5 * ((head_dim - 3) / 3.0 + 2), p, InDouble()));
  }
  for (int iteration = 0; iteration < 10; ++iteration) {
    const std::vector<double> t = half_boundaries(c);
    for (std::size_t i = 0; i < half; ++i) c[i] = marginal.conditional_mean(t[i], t[i + 1]);
  }
  constexpr int kMostSteps = 100;  // about ten suffice; the density is log-concave, so the solution is unique
  double previous = 1;
  for (int iteration = 0; iteration < kMostSteps; ++iteration) {
    const std::vector<double> step = newton_step(marginal, c);
    double scale = 1, largest = 0;
    std::vector<double> next(half);
    do {
      for (std::size_t i = 0; i < half; ++i) next[i] = c[i] + scale * step[i];
      scale *= 0.5;
    } while (!increasing_within_unit(next));
    for (std::size_t i = 0; i < half; ++i) largest = std::max(largest, std::fabs(next[i] - c[i]));
    c = next;
    // Small steps that no longer shrink are rounding errors, which grow with the number of cells.
    if (largest < 1e-14 || (largest < 1e-10 && largest > 0.5 * previous)) break;
    previous = largest;
  }
  Codebook book;
  book.bits = bits;
  for (std::size_t i = half; i-- > 0;) book.centroids.push_back(-c[i]);
  book.centroids.insert(book.centroids.end(), c.begin(), c.end());
  book.boundaries = midpoint_boundaries(book.centroids);
  return book;
}

double sphere_mse(const Codebook& book, int head_dim) {
  // The cells cover the support, so their second moments add up to 1/d and need no computing.
  const SphereMarginal marginal(head_dim);
  double explained = 0;
  for (std::size_t i = 0; i < book.centroids.size(); ++i) {
    const double a = i == 0 ? -1.0 : book.boundaries[i];
    const double b = i + 1 == book.centroids.size() ? 1.0 : book.boundaries[i + 1];
    const double c = book.centroids[i];
    explained += c * (2 * marginal.first_moment(a, b) - c * marginal.probability(a, b));
  }
  return 1 - head_dim * explained;
}

double sphere_centroid_residual(const Codebook& book, int head_dim) {
  const SphereMarginal marginal(head_dim);
  double largest = 0;
  for (std::size_t i = 0; i < book.centroids.size(); ++i) {
    const double mean = marginal.conditional_mean(book.boundaries[i], book.boundaries[i + 1]);
    largest = std::max(largest, std::fabs(mean - book.centroids[i]));
  }
  return largest;
}

double isotropic_alpha_gaussian(int head_dim) {
  constexpr double kTwoOverPi = 2 / std::numbers::pi;
  return std::sqrt(kTwoOverPi) / (1 + (1 - 1.0 / head_dim) * kTwoOverPi);
}

double isotropic_alpha_orthogonal(int head_dim) {
  const double ratio = std::exp(std::lgamma(0.5 * head_dim) - std::lgamma(0.5 * (head_dim + 1)));
  return std::sqrt(head_dim / std::numbers::pi) * ratio;
}

}  // namespace tq
