#include "experiments/sweep/sweep_plan.h"

#include <algorithm>
#include <set>
#include <unordered_set>

#include "core/error.h"
#include "core/sha256.h"

namespace tq {
namespace {

bool matches(const ExcludeRule& rule, const Point& point) {
  return std::all_of(rule.begin(), rule.end(), [&](const auto& condition) {
    const auto& [axis, values] = condition;
    return std::find(values.begin(), values.end(), point[axis]) != values.end();
  });
}

// What tells points apart, quicker than describe(): products have hundreds of thousands of points.
std::string joined(const Point& point) {
  std::string text;
  for (const AxisInfo& axis : axes()) {
    text += point[axis.axis];
    text += '\n';
  }
  return text;
}

}  // namespace

ExcludeRule parse_exclude_rule(std::string_view text) {
  ExcludeRule rule;
  for (std::size_t begin = 0; begin <= text.size();) {
    const std::size_t end = std::min(text.find('&', begin), text.size());
    const std::string_view condition = text.substr(begin, end - begin);
    const std::size_t equals = condition.find('=');
    const std::size_t first = condition.find_first_not_of(" \t");
    if (equals == std::string_view::npos || first >= equals) {
      throw UsageError("exclude '{}': conditions are axis=value, joined by &", text);
    }
    const std::size_t last = condition.find_last_not_of(" \t", equals - 1);
    const Axis axis = axis_named(condition.substr(first, last + 1 - first));
    rule.emplace_back(axis, value_list(axis, condition.substr(equals + 1)));
    begin = end + 1;
  }
  return rule;
}

SweepPlan plan_sweep(const std::array<std::vector<std::string>, kAxes>& values,
                     const std::vector<ExcludeRule>& rules, InputCatalogue& inputs) {
  SweepPlan plan;
  std::unordered_set<std::string> points;
  std::set<std::string> keys;
  std::array<std::size_t, kAxes> at{};  // a counter whose last digit turns fastest
  for (;;) {
    Point point;
    for (const AxisInfo& axis : axes()) {
      const std::size_t i = static_cast<std::size_t>(axis.axis);
      point[axis.axis] = values[i][at[i]];
    }
    normalise(point);
    // NOLINTNEXTLINE(bugprone-branch-clone): two reasons to count as repeated
    if (!points.insert(joined(point)).second) {
      ++plan.repeated;
    } else if (std::any_of(rules.begin(), rules.end(),
                           [&](const auto& rule) { return matches(rule, point); })) {
      ++plan.excluded;
    } else if (Configuration configuration = configure(point, inputs);
               keys.insert(configuration.key).second) {
      plan.configurations.push_back(std::move(configuration));
    } else {
      ++plan.repeated;  // two names of one capture
    }
    std::size_t digit = kAxes;
    while (digit > 0 && ++at[digit - 1] == values[digit - 1].size()) at[--digit] = 0;
    if (digit == 0) return plan;
  }
}

std::string plan_digest(const SweepPlan& plan) {
  std::string keys;
  for (const Configuration& configuration : plan.configurations) keys += configuration.key;
  return sha256_hex(keys);
}

}  // namespace tq
