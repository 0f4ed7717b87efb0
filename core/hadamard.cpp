#include "core/hadamard.h"

#include <array>
#include <bit>
#include <map>
#include <optional>

#include "core/error.h"

namespace tq {
namespace {

// Quadratic character of the prime field: chi[a] is 0 for a = 0, 1 for a square, -1 otherwise.
std::vector<int> quadratic_character(int q) {
  std::vector<int> chi(static_cast<std::size_t>(q), -1);
  chi[0] = 0;
  for (int a = 1; a < q; ++a) chi[static_cast<std::size_t>(a * a % q)] = 1;
  return chi;
}

// The (q+1) x (q+1) conference matrix C: zero diagonal, ones in the first row, C[i][j] = chi(i - j) inside;
// the first column is 1 for q = 1 mod 4 (C symmetric) and -1 for q = 3 mod 4 (C skew).
std::vector<int> conference_matrix(int q) {
  const std::vector<int> chi = quadratic_character(q);
  const std::size_t n = static_cast<std::size_t>(q) + 1;
  std::vector<int> c(n * n, 0);
  for (std::size_t j = 1; j < n; ++j) {
    c[j] = 1;
    c[j * n] = q % 4 == 1 ? 1 : -1;
  }
  for (int i = 0; i < q; ++i) {
    for (int j = 0; j < q; ++j) {
      c[static_cast<std::size_t>(i + 1) * n + static_cast<std::size_t>(j + 1)] =
          chi[static_cast<std::size_t>((i - j + q) % q)];
    }
  }
  return c;
}

// Paley I, q = 3 mod 4: H = I + C.
std::vector<float> paley_first(int q) {
  std::vector<int> c = conference_matrix(q);
  const std::size_t n = static_cast<std::size_t>(q) + 1;
  for (std::size_t i = 0; i < n; ++i) c[i * n + i] = 1;
  return {c.begin(), c.end()};
}

// Paley II, q = 1 mod 4: every 0 of C becomes [[1,-1],[-1,-1]], every +-1 becomes +-[[1,1],[1,-1]].
std::vector<float> paley_second(int q) {
  const std::vector<int> c = conference_matrix(q);
  const std::size_t n = static_cast<std::size_t>(q) + 1, order = 2 * n;
  std::vector<float> h(order * order);
  for (std::size_t i = 0; i < n; ++i) {
    for (std::size_t j = 0; j < n; ++j) {
      const float entry = static_cast<float>(c[i * n + j]);
      const std::array<float, 4> block = c[i * n + j] == 0
                                             ? std::array<float, 4>{1, -1, -1, -1}
                                             : std::array<float, 4>{entry, entry, entry, -entry};
      for (std::size_t k = 0; k < 4; ++k) h[(2 * i + k / 2) * order + 2 * j + k % 2] = block[k];
    }
  }
  return h;
}

constexpr std::array<int, 4> kPaleyOrders{12, 20, 28, 36};

// Fewest Paley factors first: they cost m additions a coordinate where Sylvester's cost one.
std::optional<HadamardPlan> find_plan(int order) {
  if (order < 1) return std::nullopt;
  if (std::has_single_bit(static_cast<unsigned>(order))) return HadamardPlan{{}, order};
  std::optional<HadamardPlan> best;
  for (const int paley : kPaleyOrders) {
    if (order % paley != 0) continue;
    std::optional<HadamardPlan> rest = find_plan(order / paley);
    if (!rest || (best && best->paley_orders.size() <= rest->paley_orders.size() + 1)) continue;
    rest->paley_orders.insert(rest->paley_orders.begin(), paley);
    best = std::move(rest);
  }
  return best;
}

}  // namespace

bool hadamard_supported(int order) {
  return order >= 16 && order <= 1024 && order % 8 == 0 && find_plan(order).has_value();
}

HadamardPlan hadamard_plan(int order) {
  if (hadamard_supported(order)) return *find_plan(order);
  int below = order - 1, above = order + 1;
  while (below >= 16 && !hadamard_supported(below)) --below;
  while (above <= 1024 && !hadamard_supported(above)) ++above;
  std::string nearest;
  if (below >= 16 && below <= 1024) nearest += fmt::format("{}", below);
  if (above >= 16 && above <= 1024) nearest += fmt::format("{}{}", nearest.empty() ? "" : " and ", above);
  throw UsageError(
      "no Hadamard matrix of order {} is built here (2^k times products of 12, 20, 28, 36, multiples of 8 "
      "from 16 to "
      "1024); the nearest are {}; use --rotation qr",
      order, nearest.empty() ? "16 and 1024" : nearest);
}

const std::vector<float>& paley_matrix(int order) {
  static const std::map<int, std::vector<float>> matrices{
      {12, paley_first(11)}, {20, paley_first(19)}, {28, paley_second(13)}, {36, paley_second(17)}};
  return matrices.at(order);
}

}  // namespace tq
