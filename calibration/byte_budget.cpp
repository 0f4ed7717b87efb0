#include "calibration/byte_budget.h"

#include <algorithm>
#include <numeric>

#include "core/error.h"

namespace tq {

std::vector<std::size_t> least_harm(const std::vector<std::vector<PricedChoice>>& items,
                                    std::int64_t budget) {
  // What every item costs beyond its cheapest choice, which is spent in any case.
  std::vector<std::int64_t> cheapest;
  std::int64_t least = 0, most = 0, unit = 0;
  for (const std::vector<PricedChoice>& item : items) {
    const auto [low, high] = std::minmax_element(
        item.begin(), item.end(), [](const auto& a, const auto& b) { return a.bytes < b.bytes; });
    cheapest.push_back(low->bytes);
    least += low->bytes;
    most += high->bytes;
    for (const PricedChoice& choice : item) unit = std::gcd(unit, choice.bytes - low->bytes);
  }
  if (budget < least) {
    throw UsageError("a budget of {} bytes a token cannot be met; the least is {}", budget, least);
  }
  unit = std::max<std::int64_t>(unit, 1);
  const auto units = static_cast<std::size_t>((std::min(budget, most) - least) / unit);
  const auto price = [&](std::size_t item, const PricedChoice& choice) {
    return static_cast<std::size_t>((choice.bytes - cheapest[item]) / unit);
  };

  // harm[u]: the least of the items so far for exactly u units; chosen[item][u]: how it came about.
  constexpr std::size_t kNone = static_cast<std::size_t>(-1);
  struct State {
    double harm = 0;
    bool reached = false;
  };
  std::vector<State> states(units + 1), next;
  states[0].reached = true;
  std::vector<std::vector<std::size_t>> chosen;
  for (std::size_t i = 0; i < items.size(); ++i) {
    next.assign(units + 1, {});
    chosen.emplace_back(units + 1, kNone);
    for (std::size_t c = 0; c < items[i].size(); ++c) {
      const std::size_t spent = price(i, items[i][c]);
      for (std::size_t u = spent; u <= units; ++u) {
        const State& before = states[u - spent];
        if (!before.reached) continue;
        const double harm = before.harm + items[i][c].harm;
        if (next[u].reached && next[u].harm <= harm) continue;
        next[u] = {harm, true};
        chosen[i][u] = c;
      }
    }
    states.swap(next);
  }

  std::size_t at = 0;
  for (std::size_t u = 1; u <= units; ++u) {
    if (states[u].reached && states[u].harm < states[at].harm) at = u;
  }
  std::vector<std::size_t> choices(items.size());
  for (std::size_t i = items.size(); i-- > 0;) {
    choices[i] = chosen[i][at];
    at -= price(i, items[i][choices[i]]);
  }
  return choices;
}

}  // namespace tq
