#include "tests/support/reference.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <limits>
#include <numbers>
#include <numeric>

namespace tq::reference {

Vector multiply(const Matrix& m, std::span<const double> x) {
  Vector y(m.order);
  for (std::size_t i = 0; i < m.order; ++i) {
    for (std::size_t j = 0; j < m.order; ++j) y[i] += m.at(i, j) * x[j];
  }
  return y;
}

Vector multiply_transposed(const Matrix& m, std::span<const double> x) {
  Vector y(m.order);
  for (std::size_t i = 0; i < m.order; ++i) {
    for (std::size_t j = 0; j < m.order; ++j) y[j] += m.at(i, j) * x[i];
  }
  return y;
}

Vector widen(std::span<const float> x) { return {x.begin(), x.end()}; }

double dot(std::span<const double> a, std::span<const double> b) {
  return std::inner_product(a.begin(), a.end(), b.begin(), 0.0);
}

double norm(std::span<const double> a) { return std::sqrt(dot(a, a)); }

double cosine(std::span<const double> a, std::span<const double> b) {
  return dot(a, b) / (norm(a) * norm(b));
}

double relative_error(std::span<const double> a, std::span<const double> b) {
  Vector difference(a.size());
  for (std::size_t i = 0; i < a.size(); ++i) difference[i] = a[i] - b[i];
  const double size = norm(b);
  return size > 0 ? norm(difference) / size : norm(difference);
}

std::vector<std::uint32_t> philox4x32_10(const std::uint32_t (&counter)[4], const std::uint32_t (&key)[2]) {
  std::uint32_t c0 = counter[0], c1 = counter[1], c2 = counter[2], c3 = counter[3], k0 = key[0], k1 = key[1];
  for (int round = 0; round < 10; ++round) {
    if (round > 0) {
      k0 += 0x9E3779B9u;
      k1 += 0xBB67AE85u;
    }
    const std::uint64_t left = std::uint64_t{0xD2511F53u} * c0, right = std::uint64_t{0xCD9E8D57u} * c2;
    const std::uint32_t new0 = static_cast<std::uint32_t>(right >> 32) ^ c1 ^ k0;
    const std::uint32_t new2 = static_cast<std::uint32_t>(left >> 32) ^ c3 ^ k1;
    c0 = new0;
    c1 = static_cast<std::uint32_t>(right);
    c2 = new2;
    c3 = static_cast<std::uint32_t>(left);
  }
  return {c0, c1, c2, c3};
}

Matrix sylvester(std::size_t order) {
  Matrix h(order);
  h.at(0, 0) = 1;
  for (std::size_t n = 1; n < order; n *= 2) {
    for (std::size_t i = 0; i < n; ++i) {
      for (std::size_t j = 0; j < n; ++j) {
        h.at(i, j + n) = h.at(i + n, j) = h.at(i, j);
        h.at(i + n, j + n) = -h.at(i, j);
      }
    }
  }
  return h;
}

namespace {

// Legendre symbol by looking for a root.
int legendre(std::size_t a, std::size_t q) {
  if (a % q == 0) return 0;
  for (std::size_t x = 1; x < q; ++x) {
    if (x * x % q == a % q) return 1;
  }
  return -1;
}

}  // namespace

Matrix paley(std::size_t q) {
  const bool skew = q % 4 == 3;
  Matrix conference(q + 1);
  for (std::size_t k = 1; k <= q; ++k) {
    conference.at(0, k) = 1;
    conference.at(k, 0) = skew ? -1 : 1;
    for (std::size_t l = 1; l <= q; ++l) conference.at(k, l) = legendre(k + q - l, q);
  }
  if (skew) {
    for (std::size_t k = 0; k <= q; ++k) conference.at(k, k) = 1;
    return conference;
  }
  Matrix h(2 * (q + 1));
  for (std::size_t i = 0; i <= q; ++i) {
    for (std::size_t j = 0; j <= q; ++j) {
      const double c = conference.at(i, j);
      const bool diagonal = i == j;
      h.at(2 * i, 2 * j) = diagonal ? 1 : c;
      h.at(2 * i, 2 * j + 1) = diagonal ? -1 : c;
      h.at(2 * i + 1, 2 * j) = diagonal ? -1 : c;
      h.at(2 * i + 1, 2 * j + 1) = diagonal ? -1 : -c;
    }
  }
  return h;
}

Matrix kronecker(const Matrix& a, const Matrix& b) {
  Matrix product(a.order * b.order);
  for (std::size_t i = 0; i < product.order; ++i) {
    for (std::size_t j = 0; j < product.order; ++j) {
      product.at(i, j) = a.at(i / b.order, j / b.order) * b.at(i % b.order, j % b.order);
    }
  }
  return product;
}

Matrix hadamard(const HadamardPlan& plan) {
  Matrix product(1);
  product.at(0, 0) = 1;
  for (const int order : plan.paley_orders) {
    const auto q = static_cast<std::size_t>(order == 12 || order == 20 ? order - 1 : order / 2 - 1);
    product = kronecker(product, paley(q));
  }
  return kronecker(product, sylvester(static_cast<std::size_t>(plan.sylvester_order)));
}

bool is_hadamard(const Matrix& h) {
  // Rows as bit masks: the inner product of two +-1 rows is n less twice the number of places where they
  // differ.
  const std::size_t n = h.order, words = (n + 63) / 64;
  std::vector<std::uint64_t> negative(n * words);
  for (std::size_t i = 0; i < n; ++i) {
    for (std::size_t j = 0; j < n; ++j) {
      if (h.at(i, j) != 1 && h.at(i, j) != -1) return false;
      if (h.at(i, j) < 0) negative[i * words + j / 64] |= std::uint64_t{1} << (j % 64);
    }
  }
  for (std::size_t i = 0; i < n; ++i) {
    for (std::size_t j = 0; j < i; ++j) {
      std::size_t differing = 0;
      for (std::size_t w = 0; w < words; ++w) {
        differing +=
            static_cast<std::size_t>(std::popcount(negative[i * words + w] ^ negative[j * words + w]));
      }
      if (2 * differing != n) return false;
    }
  }
  return true;
}

Matrix dense(const Rotation& rotation) {
  const auto d = static_cast<std::size_t>(rotation.head_dim());
  Matrix result(d);
  if (rotation.kind() == RotationKind::qr) {
    result.entries.assign(rotation.matrix().begin(), rotation.matrix().end());
    return result;
  }
  const Matrix h = hadamard(rotation.hadamard());
  for (std::size_t i = 0; i < d; ++i) {
    for (std::size_t j = 0; j < d; ++j) {
      result.at(i, j) = h.at(rotation.permutation()[i], j) * static_cast<double>(rotation.signs()[j]) /
                        std::sqrt(static_cast<double>(d));
    }
  }
  return result;
}

Matrix dense(const Sketch& sketch) {
  const auto d = static_cast<std::size_t>(sketch.head_dim());
  if (sketch.kind() == SketchKind::orthogonal) {
    Matrix result = dense(sketch.rht());
    for (double& entry : result.entries) entry *= std::sqrt(static_cast<double>(d));
    return result;
  }
  Matrix result(d);
  result.entries.assign(sketch.matrix().begin(), sketch.matrix().end());
  return result;
}

double from_half(std::uint16_t bits) {
  const double sign = (bits & 0x8000u) != 0 ? -1 : 1;
  const int exponent = (bits >> 10) & 31, mantissa = bits & 1023;
  if (exponent == 31) {
    return mantissa == 0 ? sign * std::numeric_limits<double>::infinity()
                         : std::numeric_limits<double>::quiet_NaN();
  }
  return exponent == 0 ? sign * std::ldexp(mantissa, -24) : sign * std::ldexp(1024 + mantissa, exponent - 25);
}

std::uint16_t to_half(double value) {
  // Bit patterns of positive halves grow with their values. Entry 0x7c00 stands for 65536, where the next
  // binade would begin: what rounds to it is infinite.
  static const std::vector<double> halves = [] {
    std::vector<double> table;
    for (unsigned bits = 0; bits < 0x7c00u; ++bits)
      table.push_back(from_half(static_cast<std::uint16_t>(bits)));
    table.push_back(65536);
    return table;
  }();
  const std::uint16_t sign = std::signbit(value) ? 0x8000u : 0;
  const double magnitude = std::min(std::fabs(value), 65536.0);
  const auto above = std::lower_bound(halves.begin(), halves.end(), magnitude);
  auto bits = static_cast<std::uint16_t>(above - halves.begin());
  if (*above != magnitude) {
    const double up = *above - magnitude, down = magnitude - *(above - 1);
    if (down < up || (down == up && bits % 2 == 1)) --bits;
  }
  return static_cast<std::uint16_t>(bits | sign);
}

double half_rounding(double value) {
  const double magnitude = std::max(std::fabs(value), 0x1p-14);
  return std::ldexp(1.0, std::ilogb(magnitude) - 11);
}

namespace {

constexpr std::size_t kNodes = 20;
struct GaussLegendre {
  std::array<double, kNodes> node, weight;  // on [-1, 1]
};

GaussLegendre gauss_legendre() {
  GaussLegendre rule;
  constexpr int n = kNodes;
  for (int i = 0; i < n; ++i) {
    double x = std::cos(std::numbers::pi * (i + 0.75) / (n + 0.5)), derivative = 0;
    for (int step = 0; step < 100; ++step) {
      double before = 1, value = x;  // Legendre polynomials of degree k - 1 and k
      for (int k = 2; k <= n; ++k) {
        const double next = ((2 * k - 1) * x * value - (k - 1) * before) / k;
        before = value;
        value = next;
      }
      derivative = n * (x * value - before) / (x * x - 1);
      x -= value / derivative;
    }
    rule.node[static_cast<std::size_t>(i)] = x;
    rule.weight[static_cast<std::size_t>(i)] = 2 / ((1 - x * x) * derivative * derivative);
  }
  return rule;
}

template <typename Function>
double integrate(double a, double b, double panel, const Function& function) {
  static const GaussLegendre rule = gauss_legendre();
  const auto panels = static_cast<std::size_t>(std::ceil((b - a) / panel));
  const double half = 0.5 * (b - a) / static_cast<double>(panels);
  double sum = 0;
  for (std::size_t p = 0; p < panels; ++p) {
    const double middle = a + half * static_cast<double>(2 * p + 1);
    for (std::size_t k = 0; k < kNodes; ++k)
      sum += rule.weight[k] * half * function(middle + half * rule.node[k]);
  }
  return sum;
}

// Integral over [a, b] of function(y) f(y). With y = sin t, f(y) dy = C cos(t)^(d-2) dt is smooth up to the
// ends of the support; panels of half a standard deviation resolve it to the last digit.
template <typename Function>
double sphere_integral(int head_dim, double a, double b, const Function& function) {
  const double d = head_dim;
  const double c = std::exp(std::lgamma(d / 2) - std::lgamma((d - 1) / 2)) / std::sqrt(std::numbers::pi);
  return integrate(std::asin(a), std::asin(b), 0.5 / std::sqrt(d),
                   [&](double t) { return function(std::sin(t)) * c * std::pow(std::cos(t), d - 2); });
}

}  // namespace

CellMoments sphere_moments(int head_dim, double a, double b) {
  return {sphere_integral(head_dim, a, b, [](double) { return 1.0; }),
          sphere_integral(head_dim, a, b, [](double y) { return y; })};
}

double sphere_mse(int head_dim, const std::vector<double>& centroids, const std::vector<double>& boundaries) {
  double error = 0;
  for (std::size_t i = 0; i < centroids.size(); ++i) {
    error += sphere_integral(head_dim, boundaries[i], boundaries[i + 1],
                             [&](double y) { return (y - centroids[i]) * (y - centroids[i]); });
  }
  return head_dim * error;
}

Vector lloyd_max(int head_dim, int bits) {
  const std::size_t half = std::size_t{1} << (bits - 1);
  const double reach = 3.5 / std::sqrt(static_cast<double>(head_dim));
  Vector c(half);
  for (std::size_t i = 0; i < half; ++i)
    c[i] = reach * (static_cast<double>(i) + 0.5) / static_cast<double>(half);
  double moved = 1;
  while (moved > 1e-13) {
    moved = 0;
    Vector next(half);
    for (std::size_t i = 0; i < half; ++i) {
      const double a = i == 0 ? 0 : (c[i - 1] + c[i]) / 2, b = i + 1 == half ? 1 : (c[i] + c[i + 1]) / 2;
      const CellMoments moments = sphere_moments(head_dim, a, b);
      next[i] = moments.first / moments.mass;
      moved = std::max(moved, std::fabs(next[i] - c[i]));
    }
    c = next;
  }
  return c;
}

int cell(const Codebook& codebook, double y) {
  int index = 0;
  while (index + 1 < (1 << codebook.bits) && y > codebook.boundaries[static_cast<std::size_t>(index) + 1])
    ++index;
  return index;
}

double distance_to_boundary(const Codebook& codebook, double y) {
  double nearest = std::numeric_limits<double>::infinity();
  for (std::size_t i = 1; i + 1 < codebook.boundaries.size(); ++i) {
    nearest = std::min(nearest, std::fabs(y - codebook.boundaries[i]));
  }
  return nearest;
}

std::vector<std::uint8_t> pack(std::span<const int> codes, int bits) {
  std::vector<std::uint8_t> bytes((codes.size() * static_cast<std::size_t>(bits) + 7) / 8);
  std::size_t position = 0;
  for (const int code : codes) {
    for (int bit = 0; bit < bits; ++bit, ++position) {
      if ((code >> bit & 1) != 0)
        bytes[position / 8] = static_cast<std::uint8_t>(bytes[position / 8] | 1 << position % 8);
    }
  }
  return bytes;
}

std::vector<int> unpack(std::span<const std::uint8_t> bytes, std::size_t count, int bits) {
  std::vector<int> codes(count);
  std::size_t position = 0;
  for (int& code : codes) {
    for (int bit = 0; bit < bits; ++bit, ++position) code |= (bytes[position / 8] >> position % 8 & 1) << bit;
  }
  return codes;
}

Vector rotated_direction(const Matrix& rotation, std::span<const double> x) {
  const double n = norm(x);
  Vector y(x.size());
  if (n == 0) return y;
  y = multiply(rotation, x);
  for (double& value : y) value /= n;
  return y;
}

Vector centroids_of(const Codebook& codebook, std::span<const int> codes) {
  Vector c;
  for (const int code : codes) c.push_back(codebook.centroids[static_cast<std::size_t>(code)]);
  return c;
}

double scale_of(ScaleRule rule, double n, std::span<const double> y, std::span<const double> c) {
  switch (rule) {
    case ScaleRule::norm:
      return n;
    case ScaleRule::nc:
      return n / norm(c);
    case ScaleRule::ls:
      return n * dot(y, c) / dot(c, c);
  }
  return 0;
}

Vector decode_mse(const Matrix& rotation, const Codebook& codebook, std::span<const int> codes, double g) {
  Vector c = centroids_of(codebook, codes);
  for (double& value : c) value *= g;
  return multiply_transposed(rotation, c);
}

Vector decode_prod(const Matrix& rotation, const Matrix& sketch, const Codebook& codebook,
                   std::span<const int> codes, double n, std::span<const int> signs, double residual_norm,
                   double alpha) {
  const Vector back = multiply_transposed(sketch, Vector(signs.begin(), signs.end()));
  Vector sum = centroids_of(codebook, codes);
  const auto d = static_cast<double>(sum.size());
  for (std::size_t j = 0; j < sum.size(); ++j) sum[j] = n * sum[j] + alpha / d * residual_norm * back[j];
  return multiply_transposed(rotation, sum);
}

Group quantise_group(std::span<const float> x, int bits) {
  const auto [low, high] = std::minmax_element(x.begin(), x.end());
  const int largest = (1 << bits) - 1;
  Group group{to_half(*low), to_half((static_cast<double>(*high) - static_cast<double>(*low)) / largest), {}};
  const double zero = from_half(group.zero), scale = from_half(group.scale);
  for (const float value : x) {
    const double code = scale == 0 ? 0 : std::nearbyint((static_cast<double>(value) - zero) / scale);
    group.codes.push_back(static_cast<int>(std::clamp(code, 0.0, static_cast<double>(largest))));
  }
  return group;
}

Vector reconstruct(const Group& group) {
  Vector x;
  for (const int code : group.codes) x.push_back(from_half(group.zero) + code * from_half(group.scale));
  return x;
}

Vector softmax(std::span<const double> scores) {
  const double largest = *std::max_element(scores.begin(), scores.end());
  Vector weights;
  for (const double score : scores) weights.push_back(std::exp(score - largest));
  const double sum = std::accumulate(weights.begin(), weights.end(), 0.0);
  for (double& weight : weights) weight /= sum;
  return weights;
}

double kl_divergence(std::span<const double> exact, std::span<const double> approximate) {
  const Vector p = softmax(exact), q = softmax(approximate);
  double sum = 0;
  for (std::size_t t = 0; t < p.size(); ++t) {
    // In exact arithmetic both weights are positive; a weight that underflows contributes nothing.
    if (p[t] > 0) sum += p[t] * std::log(p[t] / q[t]);
  }
  return sum;
}

}  // namespace tq::reference
