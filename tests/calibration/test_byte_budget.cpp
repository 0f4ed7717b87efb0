#include <doctest/doctest.h>

#include <optional>
#include <string>
#include <vector>

#include "calibration/byte_budget.h"
#include "core/error.h"
#include "tests/support/test_seed.h"

namespace {

using Items = std::vector<std::vector<tq::PricedChoice>>;

struct Total {
  std::int64_t bytes = 0;
  double harm = 0;
  friend bool operator==(const Total&, const Total&) = default;
};

Total total(const Items& items, const std::vector<std::size_t>& choices) {
  REQUIRE(choices.size() == items.size());
  Total sum;
  for (std::size_t i = 0; i < items.size(); ++i) {
    sum.bytes += items[i].at(choices[i]).bytes;
    sum.harm += items[i][choices[i]].harm;
  }
  return sum;
}

// Every combination, as a mixed-radix count.
std::optional<Total> best_of_all(const Items& items, std::int64_t budget) {
  std::vector<std::size_t> choices(items.size(), 0);
  std::optional<Total> best;
  for (bool more = true; more;) {
    const Total sum = total(items, choices);
    if (sum.bytes <= budget &&
        (!best || sum.harm < best->harm || (sum.harm == best->harm && sum.bytes < best->bytes))) {
      best = sum;
    }
    more = false;
    for (std::size_t i = 0; i < items.size() && !more; ++i) {
      more = ++choices[i] < items[i].size();
      if (!more) choices[i] = 0;
    }
  }
  return best;
}

}  // namespace

TEST_CASE("the choice within a byte budget is the best of all") {
  tq::Random random = tq::test::test_random(940);
  const auto below = [&](std::uint32_t bound) { return static_cast<int>(random.below(bound)); };
  int infeasible = 0;
  for (int round = 0; round < 400; ++round) {
    CAPTURE(round);
    const int unit = 1 + below(20);
    Items items(static_cast<std::size_t>(1 + below(5)));
    std::int64_t most = 0;
    for (auto& item : items) {
      // Bytes of a common unit and an offset of the item's own; harms that add exactly and often tie.
      const int offset = below(30);
      for (int choices = 1 + below(5); choices > 0; --choices)
        item.push_back({offset + unit * below(12), below(64) / 64.0});
      most += offset + unit * 12;
    }
    const std::int64_t budget = below(static_cast<std::uint32_t>(most + 10));
    CAPTURE(budget);
    const std::optional<Total> best = best_of_all(items, budget);
    if (best) {
      CHECK(total(items, tq::least_harm(items, budget)) == *best);
      continue;
    }
    ++infeasible;
    CHECK_THROWS_AS(tq::least_harm(items, budget), tq::UsageError);
  }
  CHECK(infeasible > 0);
  CHECK(infeasible < 400);
}

TEST_CASE("a budget that cannot be met names the least that can") {
  const Items items{{{50, 1}, {18, 9}}, {{66, 0}, {34, 3}}};
  CHECK(total(items, tq::least_harm(items, 52)) == Total{52, 12});
  try {
    tq::least_harm(items, 51);
    FAIL("no error");
  } catch (const tq::UsageError& error) {
    CHECK(std::string(error.what()).find("51") != std::string::npos);
    CHECK(std::string(error.what()).find("52") != std::string::npos);
  }
}

TEST_CASE("a budget beyond all choices costs no more than they do") {
  const Items items{{{50, 1}, {18, 9}}, {{66, 2}, {34, 2}}};
  CHECK(total(items, tq::least_harm(items, std::int64_t{1} << 60)) == Total{84, 3});
  CHECK(tq::least_harm({}, 0).empty());
}
