#include "experiments/model_caches.h"

#include <limits>

#include "calibration/artefact/cache_layers.h"
#include "core/error.h"
#include "experiments/cache_codec.h"
#include "experiments/codec_options.h"
#include "experiments/cuda_attention_cache.h"
#include "experiments/sweep/backends.h"
#include "experiments/trust_option.h"

namespace tq {
namespace {

namespace po = boost::program_options;

struct CodecChoice {
  std::string name;
  std::vector<CacheLayer> layers;
  CachePolicy policy;
};

CodecChoice choose_codec(const CommandLine& line, const ModelConfig& config) {
  if (!line.given("artefact")) {
    const CodecOptions options = read_codec_options(line);
    return {describe(options.key) + " + " + describe(options.value),
            uniform_layers(options, config.num_layers, config.head_dim, config.num_kv_heads),
            read_policy(line)};
  }
  if (codec_options_given(line))
    throw UsageError("--artefact brings its own codecs; leave out the codec options");
  const std::string path = line.get<std::string>("artefact");
  const Artefact artefact = read_artefact(path, read_trust(line));
  const bool own_policy = artefact.policy && !line.given("recent-window") && !line.given("first-tokens");
  return {path, cache_layers(artefact), own_policy ? *artefact.policy : read_policy(line)};
}

}  // namespace

std::size_t ModelCaches::first_far_position() const {
  return quantises ? static_cast<std::size_t>(policy.sinks) + window_capacity(policy)
                   : std::numeric_limits<std::size_t>::max();
}

void add_model_cache_options(CommandLine& line) {
  line.add()("artefact", po::value<std::string>()->value_name("FILE"),
             "take codecs and tables from here (*.tq.h5)")(
      "cache", po::value<std::string>()->default_value("codec")->value_name("KIND"),
      "codec, or float32: nothing rounded, to see what FP16 costs")(
      "backend", po::value<std::string>()->default_value("host")->value_name("NAME"),
      "where the caches are and attention runs: host, or cuda (a GPU)");
  add_trust_option(line);
  add_policy_options(line, CachePolicy().recent);
  add_codec_options(line, AlphaTarget::unbiased);
}

ModelCaches read_model_caches(const CommandLine& line, const ModelConfig& config) {
  const bool cuda = canonical_backend(line.get<std::string>("backend")) == kCudaBackend;
  const auto cache_of = [&](std::vector<CacheLayer> layers, const CachePolicy& policy) {
    return cuda ? cuda_cache(config, std::move(layers), policy)
                : host_cache(config, std::move(layers), policy);
  };
  ModelCaches caches;
  const std::string kind = line.get<std::string>("cache");
  if (kind == "float32") {
    if (line.given("artefact") || codec_options_given(line))
      throw UsageError("--cache float32 has no codec; leave out --artefact and the codec options");
    caches.name = kind;
    caches.cache = float32_cache(config);
  } else if (kind == "codec") {
    CodecChoice choice = choose_codec(line, config);
    caches.name = choice.name;
    caches.policy = choice.policy;
    caches.quantises = true;
    caches.cache = cache_of(std::move(choice.layers), choice.policy);
  } else {
    throw UsageError("--cache: '{}' is unknown; codec, float32", kind);
  }
  caches.baseline = cache_of(binary16_layers(config), {});
  return caches;
}

}  // namespace tq
