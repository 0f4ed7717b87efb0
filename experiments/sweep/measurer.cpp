#include "experiments/sweep/measurer.h"

#include <chrono>

#include "experiments/sweep/backends.h"
#include "experiments/sweep/capacity.h"
#include "experiments/sweep/fused_attention.h"
#include "experiments/sweep/fused_output.h"
#include "experiments/sweep/perplexity_output.h"
#include "experiments/sweep/result_line.h"

namespace tq {
namespace {

// `source`, `model`: null for what is not measured on such. Without the seconds.
Measured measured(const Configuration& configuration, const DataSource* source, const ModelSource* model,
                  const Progress& progress) {
  if (source != nullptr) {
    const CacheBackend& backend = cache_backend(configuration.point[Axis::backend]);
    const CaptureReport report = source->measure(configuration.codec, backend, progress);
    return {result_line(configuration, report),
            {.keys = report.overall.key_times, .values = report.overall.value_times}};
  }
  if (configuration.perplexity) {
    return {perplexity_line(configuration, measure_perplexity(configuration, *model, progress)), {}};
  }
  std::string line = configuration.capacity ? capacity_line(configuration)
                                            : fused_line(configuration, measure_fused(configuration));
  progress(configuration.work);
  return {std::move(line), {}};
}

}  // namespace

Measured Measurer::measure(const Configuration& configuration, const Progress& progress) {
  const auto source = configuration.has_data() ? sources_.get(configuration.data) : nullptr;
  const auto model = configuration.perplexity ? models_.get(configuration) : nullptr;
  const auto begin = std::chrono::steady_clock::now();
  Measured result = measured(configuration, source.get(), model.get(), progress);
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;
  result.timing.seconds = seconds.count();
  return result;
}

}  // namespace tq
