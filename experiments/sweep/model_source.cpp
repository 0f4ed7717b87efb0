#include "experiments/sweep/model_source.h"

#include <omp.h>

#include "experiments/cache_codec.h"
#include "experiments/cuda_attention_cache.h"
#include "experiments/language_model/model_text.h"
#include "experiments/sweep/backends.h"
#include "experiments/sweep/round_trip_cache.h"

namespace tq {
namespace {

constexpr std::string_view kTokenPrefix = "tokens:";

std::vector<std::uint32_t> read_tokens(const PerplexityShape& shape, const ModelConfig& config) {
  const std::string file = text_file(shape.text);
  return is_token_file(shape.text) ? read_token_file(config, file)
                                   : read_byte_tokens(shape.model, config, file);
}

std::unique_ptr<AttentionCache> core_cache(const std::string& backend, const ModelConfig& config,
                                           std::vector<CacheLayer> layers, const CachePolicy& policy) {
  return backend == kCudaBackend ? cuda_cache(config, std::move(layers), policy)
                                 : host_cache(config, std::move(layers), policy);
}

}  // namespace

bool is_token_file(const std::string& text) { return text.starts_with(kTokenPrefix); }

std::string text_file(const std::string& text) {
  return is_token_file(text) ? text.substr(kTokenPrefix.size()) : text;
}

ModelSource::ModelSource(const Configuration& configuration)
    : model_sha256_(configuration.model_sha256),
      text_sha256_(configuration.text_sha256),
      backend_(configuration.point[Axis::backend]),
      model_(configuration.perplexity->model),
      windows_(read_tokens(*configuration.perplexity, model_.config()), configuration.perplexity->context) {
  const auto cache = core_cache(backend_, model_.config(), binary16_layers(model_.config()), {});
  for (std::size_t i = 0; i < windows_.count(); ++i) {
    states_.push_back(model_.read(windows_[i], *cache, [] {}));
  }
}

bool ModelSource::fits(const Configuration& configuration) const {
  return configuration.model_sha256 == model_sha256_ && configuration.text_sha256 == text_sha256_ &&
         configuration.point[Axis::backend] == backend_ &&
         configuration.perplexity->context == windows_.context();
}

std::shared_ptr<const ModelSource> ModelSources::get(const Configuration& configuration) {
  const std::lock_guard lock(mutex_);
  if (latest_ && latest_->fits(configuration)) return latest_;
  const int before = omp_get_max_threads();
  omp_set_num_threads(threads_);
  latest_ = std::make_shared<const ModelSource>(configuration);
  omp_set_num_threads(before);
  return latest_;
}

PerplexityReport measure_perplexity(const Configuration& configuration, const ModelSource& source,
                                    const Progress& progress) {
  const CodecOptions& codec = configuration.codec;
  const CachePolicy& policy = configuration.perplexity->policy;
  const ModelConfig& config = source.model().config();
  const bool of_core =
      codec.quantise_keys && codec.quantise_values && !codec.key_storage && !codec.value_storage;
  const auto cache =
      of_core
          ? core_cache(configuration.point[Axis::backend], config,
                       uniform_layers(codec, config.num_layers, config.head_dim, config.num_kv_heads), policy)
          : round_trip_cache(config, codec, policy);
  return measure_perplexity(
      source.model(), source.windows(), static_cast<std::size_t>(policy.sinks) + window_capacity(policy),
      [&](std::size_t window) { return source.baseline_states(window); }, *cache, progress);
}

}  // namespace tq
