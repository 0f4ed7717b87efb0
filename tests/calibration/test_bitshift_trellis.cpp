#include <doctest/doctest.h>

#include <algorithm>
#include <boost/math/distributions/normal.hpp>
#include <cmath>
#include <cstring>
#include <limits>
#include <set>
#include <stdexcept>
#include <vector>

#include "calibration/codecs/bitshift_trellis.h"
#include "core/sha256.h"
#include "tests/support/simd_targets.h"
#include "tests/support/test_seed.h"

using tq::BitshiftTrellis;
using tq::TrellisSearch;

namespace {

constexpr std::uint32_t kAny = TrellisSearch::kAnyState;
constexpr double kUnreachable = std::numeric_limits<double>::infinity();

double squared(double x) { return x * x; }

double cost_of(const BitshiftTrellis& trellis, const std::vector<float>& x,
               const std::vector<std::uint16_t>& windows) {
  double cost = 0;
  for (std::size_t t = 0; t < x.size(); ++t) {
    cost += squared(static_cast<double>(x[t]) - static_cast<double>(trellis.levels()[windows[t]]));
  }
  return cost;
}

// Whether each window goes on where the one before ended, the first from `from` and the last to `to`.
bool is_path(const BitshiftTrellis& trellis, const std::vector<std::uint16_t>& windows, std::uint32_t from,
             std::uint32_t to) {
  const std::uint32_t states = static_cast<std::uint32_t>(trellis.states());
  for (std::size_t t = 0; t < windows.size(); ++t) {
    const std::uint32_t window = windows[t], before = t > 0 ? windows[t - 1] % states : from;
    if (window >> trellis.window_bits() != 0) return false;
    if (before != kAny && window >> trellis.symbol_bits() != before) return false;
  }
  return to == kAny || windows.back() % states == to;
}

// Every sequence of symbols from every state: the least cost from one state to another.
std::vector<std::vector<double>> least_costs_by_enumeration(const BitshiftTrellis& trellis,
                                                            const std::vector<float>& x) {
  const std::size_t states = trellis.states(), n = x.size();
  const int bits = trellis.symbol_bits();
  std::vector<std::vector<double>> least(states, std::vector<double>(states, kUnreachable));
  for (std::size_t from = 0; from < states; ++from) {
    for (std::size_t sequence = 0; sequence >> (bits * static_cast<int>(n)) == 0; ++sequence) {
      std::size_t state = from;
      double cost = 0;
      for (std::size_t t = 0; t < n; ++t) {
        const std::size_t symbol = sequence >> (static_cast<std::size_t>(bits) * t) & ((1u << bits) - 1);
        const std::size_t window = state << bits | symbol;
        cost += squared(static_cast<double>(x[t]) - static_cast<double>(trellis.levels()[window]));
        state = window % states;
      }
      least[from][state] = std::min(least[from][state], cost);
    }
  }
  return least;
}

// The least cost of a path that starts from `from` and ends in `to`, in float64.
double least_cost(const BitshiftTrellis& trellis, const std::vector<float>& x, std::uint32_t from,
                  std::uint32_t to) {
  const std::size_t states = trellis.states();
  std::vector<double> costs(states, from == kAny ? 0 : kUnreachable), next(states);
  if (from != kAny) costs[from] = 0;
  for (const float value : x) {
    std::fill(next.begin(), next.end(), kUnreachable);
    for (std::size_t window = 0; window < states << trellis.symbol_bits(); ++window) {
      double& best = next[window % states];
      best = std::min(
          best, costs[window >> trellis.symbol_bits()] +
                    squared(static_cast<double>(value) - static_cast<double>(trellis.levels()[window])));
    }
    costs.swap(next);
  }
  return to == kAny ? *std::min_element(costs.begin(), costs.end()) : costs[to];
}

BitshiftTrellis random_trellis(tq::Random& random, int symbol_bits, int window_bits) {
  return {symbol_bits, window_bits, tq::test::normal_values(random, std::size_t{1} << window_bits)};
}

}  // namespace

TEST_CASE("bitshift trellis: the nearest paths are those that enumeration finds") {
  const int sizes[][3] = {{1, 2, 7}, {1, 4, 10}, {2, 4, 5}, {2, 6, 5}, {3, 6, 4}, {4, 8, 3}};  // b, L, n
  for (const auto& [bits, window_bits, places] : sizes) {
    CAPTURE(bits);
    CAPTURE(window_bits);
    tq::Random random = tq::test::test_random(static_cast<std::uint32_t>(100 + 10 * bits + window_bits));
    for (int repetition = 0; repetition < 3; ++repetition) {
      const BitshiftTrellis trellis = random_trellis(random, bits, window_bits);
      const std::vector<float> x = tq::test::normal_values(random, static_cast<std::size_t>(places), 1.5);
      const auto least = least_costs_by_enumeration(trellis, x);
      TrellisSearch search(trellis, x.size());
      std::vector<std::uint16_t> windows(x.size());
      const auto check = [&](std::uint32_t from, std::uint32_t to, double expected) {
        search.nearest_path(x.data(), x.size(), from, to, windows.data());
        CHECK(is_path(trellis, windows, from, to));
        CHECK(cost_of(trellis, x, windows) == doctest::Approx(expected).epsilon(1e-6));
      };
      double free = kUnreachable;
      for (std::uint32_t from = 0; from < trellis.states(); ++from) {
        double to_any = kUnreachable;
        for (std::uint32_t to = 0; to < trellis.states(); ++to) {
          to_any = std::min(to_any, least[from][to]);
          if (least[from][to] < kUnreachable) check(from, to, least[from][to]);
        }
        check(from, kAny, to_any);
        free = std::min(free, to_any);
      }
      check(kAny, kAny, free);
    }
  }
}

TEST_CASE("bitshift trellis: full searches against Viterbi in float64") {
  for (const int bits : {1, 2, 3, 4}) {
    CAPTURE(bits);
    tq::Random random = tq::test::test_random(static_cast<std::uint32_t>(200 + bits));
    const BitshiftTrellis trellis(bits, 12, tq::gaussian_levels(bits, 12));
    TrellisSearch search(trellis, 128);
    for (const std::size_t n : {std::size_t{16}, std::size_t{96}, std::size_t{128}}) {
      CAPTURE(n);
      const std::vector<float> x = tq::test::normal_values(random, n);
      const std::uint32_t state = random.below(static_cast<std::uint32_t>(trellis.states()));
      std::vector<std::uint16_t> windows(n);
      for (const std::uint32_t end : {kAny, state}) {
        search.nearest_path(x.data(), n, end, end, windows.data());
        CHECK(is_path(trellis, windows, end, end));
        CHECK(cost_of(trellis, x, windows) ==
              doctest::Approx(least_cost(trellis, x, end, end)).epsilon(1e-5));
      }
    }
  }
}

TEST_CASE("bitshift trellis: rings close, and are nearly the nearest") {
  for (const int bits : {1, 2, 3}) {
    CAPTURE(bits);
    tq::Random random = tq::test::test_random(static_cast<std::uint32_t>(300 + bits));
    const BitshiftTrellis trellis(bits, 7, tq::gaussian_levels(bits, 7));
    double found = 0, best = 0;
    for (const std::size_t n : {std::size_t{64}, std::size_t{80}, std::size_t{200}}) {
      TrellisSearch search(trellis, n);
      std::vector<std::uint8_t> symbols(n);
      std::vector<std::uint16_t> windows(n);
      for (int repetition = 0; repetition < 6; ++repetition) {
        const std::vector<float> x = tq::test::normal_values(random, n);
        search.near_ring(x.data(), n, symbols.data());
        trellis.windows_of_ring(symbols.data(), n, windows.data());
        const std::uint32_t seam = windows.back() % static_cast<std::uint32_t>(trellis.states());
        CHECK(is_path(trellis, windows, seam, seam));
        for (std::size_t t = 0; t < n; ++t) CHECK(windows[t] % (1u << bits) == symbols[t]);
        double least = kUnreachable;
        for (std::uint32_t state = 0; state < trellis.states(); ++state) {
          least = std::min(least, least_cost(trellis, x, state, state));
        }
        CHECK(cost_of(trellis, x, windows) >= least * (1 - 1e-6));
        found += cost_of(trellis, x, windows);
        best += least;
      }
    }
    MESSAGE(bits << " bits: " << found / best - 1 << " above the nearest rings");
    CHECK(found < best * 1.02);
  }
}

TEST_CASE("gaussian levels: quantiles, one in each cell of what leaves or enters a state") {
  const boost::math::normal normal;
  for (const int bits : {1, 2, 3, 4}) {
    CAPTURE(bits);
    const std::vector<float> levels = tq::gaussian_levels(bits, 12);
    REQUIRE(levels.size() == 4096);
    std::vector<float> sorted = levels;
    std::sort(sorted.begin(), sorted.end());
    const double deviation = std::sqrt(1 - std::pow(4, -bits));
    for (std::size_t i = 0; i < sorted.size(); ++i) {
      const double expected =
          deviation * boost::math::quantile(normal, (static_cast<double>(i) + 0.5) / 4096);
      CHECK(static_cast<double>(sorted[i]) == doctest::Approx(expected).epsilon(1e-6));
    }
    const std::size_t symbols = std::size_t{1} << bits, states = 4096 / symbols;
    const auto cell = [&](std::size_t window) {
      return static_cast<std::size_t>(std::lower_bound(sorted.begin(), sorted.end(), levels[window]) -
                                      sorted.begin()) /
             states;
    };
    for (std::size_t state = 0; state < states; ++state) {
      std::set<std::size_t> leaving, entering;
      for (std::size_t symbol = 0; symbol < symbols; ++symbol) {
        leaving.insert(cell(state * symbols + symbol));
        entering.insert(cell(symbol * states + state));
      }
      CHECK(leaving.size() == symbols);
      CHECK(entering.size() == symbols);
    }
  }
}

TEST_CASE("gaussian levels are part of the format") {
  std::string digests;
  for (const int bits : {1, 2, 3, 4}) {
    const std::vector<float> levels = tq::gaussian_levels(bits, 12);
    std::string bytes(levels.size() * sizeof(float), '\0');
    std::memcpy(bytes.data(), levels.data(), bytes.size());
    digests += tq::sha256_hex(bytes).substr(0, 16) + " ";
  }
  CHECK(digests == "ef2f49fced78e72f 8bbe816bb816fe36 85be5571aa500fa3 8edb512313a1fec9 ");
}

TEST_CASE("bitshift trellis: the same path on every SIMD target") {
  for (const int bits : {1, 2, 3, 4}) {
    CAPTURE(bits);
    tq::Random random = tq::test::test_random(static_cast<std::uint32_t>(400 + bits));
    for (const int window_bits : {2 * bits, 12}) {
      const BitshiftTrellis trellis(bits, window_bits, tq::gaussian_levels(bits, window_bits));
      // Coarse values, so that costs tie.
      std::vector<float> x = tq::test::normal_values(random, 120);
      for (std::size_t t = 0; t < 60; ++t) x[t] = std::round(x[t]);
      std::vector<std::uint8_t> best(x.size()), symbols(x.size());
      TrellisSearch(trellis, x.size()).near_ring(x.data(), x.size(), best.data());
      for (const std::int64_t target : hwy::SupportedAndGeneratedTargets()) {
        INFO(hwy::TargetName(target));
        const tq::test::ForcedTarget forced(target);
        TrellisSearch(trellis, x.size()).near_ring(x.data(), x.size(), symbols.data());
        const bool same = symbols == best;
        CHECK(same);
      }
    }
  }
}

TEST_CASE("bitshift trellis: sizes") {
  const std::vector<float> levels(256);
  CHECK_NOTHROW(BitshiftTrellis(4, 8, levels));
  CHECK_THROWS_AS(BitshiftTrellis(5, 10, std::vector<float>(1024)), std::invalid_argument);
  CHECK_THROWS_AS(BitshiftTrellis(0, 8, levels), std::invalid_argument);
  CHECK_THROWS_AS(BitshiftTrellis(2, 3, std::vector<float>(8)), std::invalid_argument);
  CHECK_THROWS_AS(BitshiftTrellis(2, 9, levels), std::invalid_argument);
}
