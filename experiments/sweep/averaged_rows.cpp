#include "experiments/sweep/averaged_rows.h"

#include <fmt/format.h>

#include <algorithm>
#include <boost/math/distributions/students_t.hpp>
#include <cmath>

namespace tq {
namespace {

ResultValues average(const std::vector<const ResultValues*>& seeds) {
  ResultValues result;
  for (const auto& [name, first] : *seeds.front()) {
    std::vector<Estimate> estimates;
    for (const ResultValues* values : seeds) {
      const auto found = values->find(name);
      if (found != values->end()) estimates.push_back(found->second);
    }
    if (estimates.size() == seeds.size()) result[name] = mean_over_seeds(estimates);
  }
  return result;
}

std::vector<LayerValues> average_layers(const std::vector<const ResultRow*>& seeds) {
  std::vector<LayerValues> layers;
  for (std::size_t i = 0; i < seeds.front()->layers.size(); ++i) {
    std::vector<const ResultValues*> values;
    for (const ResultRow* row : seeds) {
      if (i < row->layers.size()) values.push_back(&row->layers[i].values);
    }
    if (values.size() == seeds.size()) layers.push_back({seeds.front()->layers[i].layer, average(values)});
  }
  return layers;
}

}  // namespace

Estimate mean_over_seeds(const std::vector<Estimate>& seeds) {
  if (seeds.size() == 1) return seeds.front();
  const double n = static_cast<double>(seeds.size());
  double mean = 0, squares = 0;
  for (const Estimate& seed : seeds) mean += seed.mean / n;
  const bool the_same = std::all_of(seeds.begin(), seeds.end(),
                                    [&](const Estimate& seed) { return seed.mean == seeds.front().mean; });
  if (the_same) return seeds.front();
  for (const Estimate& seed : seeds) squares += (seed.mean - mean) * (seed.mean - mean);
  const double t = boost::math::quantile(boost::math::students_t(n - 1), 0.975);
  return {mean, t * std::sqrt(squares / (n - 1) / n)};
}

std::vector<AveragedRow> average_over_seeds(const std::vector<const ResultRow*>& rows) {
  std::vector<std::vector<const ResultRow*>> groups;
  std::map<std::string, std::size_t> index;
  for (const ResultRow* row : rows) {
    nlohmann::ordered_json without_seed = row->configuration;
    without_seed.erase("seed");
    const auto [place, is_new] = index.emplace(row->capture_sha256 + without_seed.dump(), groups.size());
    if (is_new) groups.emplace_back();
    groups[place->second].push_back(row);
  }
  std::vector<AveragedRow> result;
  for (const std::vector<const ResultRow*>& seeds : groups) {
    AveragedRow& average_row = result.emplace_back(AveragedRow{*seeds.front(), seeds.size()});
    average_row.row.configuration.erase("seed");
    std::vector<const ResultValues*> values;
    for (const ResultRow* row : seeds) values.push_back(&row->values);
    average_row.row.values = average(values);
    average_row.row.layers = average_layers(seeds);
  }
  return result;
}

std::string to_string(const Estimate& estimate, std::string_view sign) {
  if (!estimate.half_width) {
    constexpr double kMostWhole = 1e15;
    if (std::fabs(estimate.mean) < kMostWhole && estimate.mean == std::round(estimate.mean))
      return fmt::format("{:.0f}", estimate.mean);
    const bool nearly_one = estimate.mean > 0.999 && estimate.mean < 1;
    return nearly_one ? fmt::format("{:.8f}", estimate.mean) : fmt::format("{:.6g}", estimate.mean);
  }
  constexpr int kMostDecimals = 8;
  const double width = *estimate.half_width;
  if (width == 0) return fmt::format("{:.6g} {} 0", estimate.mean, sign);
  constexpr double kSmall = 1e-4;
  if (estimate.mean != 0 && std::fabs(estimate.mean) < kSmall)
    return fmt::format("{:.3e} {} {:.1e}", estimate.mean, sign, width);
  const int decimals = std::clamp(1 - static_cast<int>(std::floor(std::log10(width))), 1, kMostDecimals);
  return fmt::format("{:.{}f} {} {:.{}f}", estimate.mean, decimals, sign, width, decimals);
}

}  // namespace tq
