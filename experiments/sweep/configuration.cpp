#include "experiments/sweep/configuration.h"

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <set>

#include "calibration/codecs/registry.h"
#include "core/error.h"
#include "core/hadamard.h"
#include "core/sha256.h"
#include "datasets/input_file.h"
#include "experiments/language_model/language_model.h"
#include "experiments/language_model/model_text.h"
#include "experiments/sweep/backends.h"
#include "experiments/sweep/model_source.h"
#include "kernel_templates/shapes.h"

namespace tq {
namespace {

template <typename Number>
Number number(const std::string& text) {
  Number value{};
  std::from_chars(text.data(), text.data() + text.size(), value);  // canonical_value() has checked it
  return value;
}

// The rule that excludes the point by the values of these axes.
std::string rule(const Point& point, std::initializer_list<Axis> of) {
  std::string text;
  for (const Axis axis : of) {
    if (point[axis].empty()) continue;
    text += fmt::format("{}{}={}", text.empty() ? "" : " & ", info(axis).name, point[axis]);
  }
  return text;
}

// Runs a check that throws UsageError, and adds to its message which axes are at odds.
template <typename Check>
void require(const Point& point, std::initializer_list<Axis> axes_at_odds, const Check& check) {
  try {
    check();
  } catch (const UsageError& error) {
    throw UsageError("{}; leave it out with: exclude = {}", error.what(), rule(point, axes_at_odds));
  }
}

// Registered codecs are arithmetic of the host's.
void refuse_storage_on_gpu(const Point& point, Axis mode) {
  if (point[Axis::backend] != kCudaBackend || storage_codec_named(point[mode]) == nullptr) return;
  throw UsageError("backend {} has no kernels for {} {}; leave it out with: exclude = {}", kCudaBackend,
                   info(mode).name, point[mode], rule(point, {Axis::backend, mode}));
}

void check(const Point& point, const Configuration& configuration, int d, bool queries) {
  const CodecOptions& codec = configuration.codec;
  if (!codec.quantise_keys && !codec.quantise_values) {
    throw UsageError(
        "key-mode none and value-mode none leave nothing to measure; leave it out with: exclude = {}",
        rule(point, {Axis::key_mode, Axis::value_mode}));
  }
  if (codec.quantise_keys) {
    require(point, {Axis::source, Axis::d, Axis::key_mode, Axis::key_bits},
            [&] { codec.key_storage ? validate(*codec.key_storage, d) : validate(codec.key, d); });
  }
  if (codec.quantise_values) {
    require(point, {Axis::source, Axis::d, Axis::value_mode, Axis::value_bits, Axis::group_size},
            [&] { codec.value_storage ? validate(*codec.value_storage, d) : validate(codec.value, d); });
  }
  const bool prod = codec.quantise_keys && codec.key.mode == KeyMode::prod;
  if (point[Axis::rotation] == "rht") {
    require(point, {Axis::source, Axis::d, Axis::rotation}, [&] { hadamard_plan(d); });
  }
  if (prod && codec.key.sketch == SketchKind::orthogonal) {
    require(point, {Axis::source, Axis::d, Axis::sketch}, [&] { hadamard_plan(d); });
  }
  if (prod && codec.alpha == AlphaTarget::score && !queries) {
    throw UsageError("alpha score needs queries, and {} has none; leave it out with: exclude = {}",
                     point[Axis::source], rule(point, {Axis::source, Axis::queries, Axis::alpha}));
  }
  for (const Axis mode : {Axis::key_mode, Axis::value_mode}) refuse_storage_on_gpu(point, mode);
  if (point[Axis::backend] != kCudaBackend) return;
  if (codec.quantise_keys) {
    require(point, {Axis::source, Axis::d, Axis::backend, Axis::key_mode, Axis::key_bits},
            [&] { gpu::require_kernels(codec.key, d); });
  }
  if (codec.quantise_values) {
    require(point,
            {Axis::source, Axis::d, Axis::backend, Axis::value_mode, Axis::value_bits, Axis::group_size},
            [&] { gpu::require_kernels(codec.value, d); });
  }
}

// What the cache of a fused measurement cannot be filled from or with.
void check_fused(const Point& point, const CodecOptions& codec) {
  if (capture_file(point[Axis::source])) {
    throw UsageError("measure fused takes synthetic sources; leave it out with: exclude = {}",
                     rule(point, {Axis::measure, Axis::source}));
  }
  if (!codec.quantise_keys || !codec.quantise_values) {
    throw UsageError("measure fused quantises keys and values; leave it out with: exclude = {}",
                     rule(point, {Axis::measure, Axis::key_mode, Axis::value_mode}));
  }
  for (const Axis mode : {Axis::key_mode, Axis::value_mode}) {
    if (storage_codec_named(point[mode]) == nullptr) continue;
    throw UsageError("measure fused takes no {} {}; leave it out with: exclude = {}", info(mode).name,
                     point[mode], rule(point, {Axis::measure, mode}));
  }
  if (codec.equalise_values) {
    throw UsageError("measure fused does not equalise values; leave it out with: exclude = {}",
                     rule(point, {Axis::measure, Axis::equalise}));
  }
  if (codec.alpha != AlphaTarget::unbiased || codec.fixed_alpha) {
    throw UsageError("measure fused takes the unbiased alpha alone; leave it out with: exclude = {}",
                     rule(point, {Axis::measure, Axis::alpha}));
  }
}

std::string digest(const Configuration& configuration) {
  const nlohmann::ordered_json values = to_json(configuration.point);
  nlohmann::json canonical;  // whose keys are sorted
  for (const auto& [name, value] : values.items()) canonical[name] = value;
  if (!configuration.capture_sha256.empty()) canonical["source"] = "capture " + configuration.capture_sha256;
  if (configuration.perplexity) {
    canonical["model"] = configuration.model_sha256;
    canonical["text"] = configuration.text_sha256;
  }
  canonical["result_format"] = kResultFormat;
  return sha256_hex(canonical.dump());
}

void configure_capacity(Configuration& configuration) {
  const Point& point = configuration.point;
  if (!configuration.codec.quantise_keys || !configuration.codec.quantise_values) {
    throw UsageError("measure capacity counts keys and values; leave it out with: exclude = {}",
                     rule(point, {Axis::measure, Axis::key_mode, Axis::value_mode}));
  }
  configuration.data.head_dim = number<int>(point[Axis::d]);
  check(point, configuration, configuration.data.head_dim, false);
  configuration.capacity = {number<std::uint64_t>(point[Axis::memory]),
                            number<std::uint64_t>(point[Axis::memory_share]),
                            number<std::uint64_t>(point[Axis::heads])};
  configuration.work = 1;
}

void configure_perplexity(Configuration& configuration, InputCatalogue& inputs) {
  const Point& point = configuration.point;
  const CodecOptions& codec = configuration.codec;
  if (point[Axis::model] == kNone || point[Axis::text] == kNone)
    throw UsageError("measure perplexity needs a model and a text: model = FOLDER, text = FILE");
  if (codec.alpha != AlphaTarget::unbiased) {
    throw UsageError(
        "measure perplexity takes the unbiased alpha or a number; leave it out with: exclude = {}",
        rule(point, {Axis::measure, Axis::alpha}));
  }
  if (codec.equalise_values) {
    throw UsageError("measure perplexity does not equalise values; leave it out with: exclude = {}",
                     rule(point, {Axis::measure, Axis::equalise}));
  }
  const ModelFacts& model = inputs.model(point[Axis::model]);
  PerplexityShape shape{.model = point[Axis::model],
                        .text = point[Axis::text],
                        .context = number<std::size_t>(point[Axis::context]),
                        .policy = {.recent = number<int>(point[Axis::recent_window])},
                        .num_layers = model.config.num_layers,
                        .num_kv_heads = model.config.num_kv_heads,
                        .head_dim = model.config.head_dim};
  if (shape.context > static_cast<std::size_t>(model.config.max_positions)) {
    throw UsageError("{}: the model has {} positions; leave it out with: exclude = {}", shape.model,
                     model.config.max_positions, rule(point, {Axis::model, Axis::context}));
  }
  check(point, configuration, shape.head_dim, false);
  if (!is_token_file(shape.text)) require_byte_tokens(shape.model, model.config);
  const std::string text = text_file(shape.text);
  configuration.model_sha256 = model.sha256;
  configuration.text_sha256 = inputs.file_sha256(text);
  const std::size_t tokens = size_of_regular_file(text) / (is_token_file(shape.text) ? 4 : 1);
  if (tokens < shape.context) {
    throw UsageError("{}: {} tokens are fewer than one window of {}; leave it out with: exclude = {}", text,
                     tokens, shape.context, rule(point, {Axis::text, Axis::context}));
  }
  configuration.work =
      tokens / shape.context * shape.context * static_cast<std::size_t>(model.config.num_layers);
  configuration.perplexity = std::move(shape);
}

}  // namespace

const CaptureFacts* InputCatalogue::find_capture(const std::string& source) {
  if (const auto known = captures_.find(source); known != captures_.end()) return &known->second;
  const std::optional<std::string> path = capture_file(source);
  if (!path) return nullptr;
  const CaptureReader capture(*path, trust_);
  const CaptureInfo& info = capture.info();
  CaptureFacts facts;
  facts.path = *path;
  facts.sha256 = sha256_file_hex(*path);
  facts.queries = info.query_tokens > 0 && info.key_basis == "post_rope";
  for (const LayerInfo& layer : info.layers) {
    if (std::find(facts.head_dims.begin(), facts.head_dims.end(), layer.head_dim) == facts.head_dims.end()) {
      facts.head_dims.push_back(layer.head_dim);
    }
    facts.queries = facts.queries && layer.has_q;
  }
  facts.tokens = info.tokens;
  facts.num_layers = info.num_layers;
  facts.num_kv_heads = info.num_kv_heads;
  digests_.emplace(source, facts.sha256);
  return &captures_.emplace(source, std::move(facts)).first->second;
}

const ModelFacts& InputCatalogue::model(const std::string& folder) {
  if (const auto known = models_.find(folder); known != models_.end()) return known->second;
  ModelFacts facts{LanguageModel(folder).config(), ""};
  std::set<std::string> files{folder + "/config.json"};
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    if (entry.path().extension() == ".safetensors") files.insert(entry.path().string());
  }
  std::string digests;
  for (const std::string& file : files) digests += sha256_file_hex(file);
  facts.sha256 = sha256_hex(digests);
  digests_.emplace(folder, facts.sha256);
  return models_.emplace(folder, std::move(facts)).first->second;
}

const std::string& InputCatalogue::file_sha256(const std::string& path) {
  const auto known = digests_.find(path);
  return known != digests_.end() ? known->second
                                 : digests_.emplace(path, sha256_file_hex(path)).first->second;
}

void normalise(Point& point) {
  const auto clear = [&](std::initializer_list<Axis> of) {
    for (const Axis axis : of) point[axis].clear();
  };
  if (point[Axis::measure] == kCapacity) {
    clear({Axis::source, Axis::rows, Axis::queries, Axis::gqa, Axis::seed, Axis::backend, Axis::rotation,
           Axis::sketch, Axis::alpha, Axis::equalise, Axis::scale});
  } else {
    clear({Axis::memory, Axis::memory_share});
  }
  if (point[Axis::measure] == kPerplexity) {
    clear({Axis::source, Axis::d, Axis::rows, Axis::queries, Axis::heads, Axis::gqa});
  } else {
    clear({Axis::model, Axis::text, Axis::context, Axis::recent_window});
  }
  if (point[Axis::measure] == kFused) clear({Axis::queries});
  if (point[Axis::measure] == kQuality) clear({Axis::measure, Axis::heads, Axis::gqa});
  const bool synthetic = !is_capture(point[Axis::source]);
  if (!synthetic) clear({Axis::d, Axis::rows, Axis::queries});
  const auto storage = [&](Axis mode) { return storage_codec_named(point[mode]); };
  const auto of_core = [&](Axis mode) { return point[mode] != kNone && storage(mode) == nullptr; };
  const auto has_bits = [&](Axis mode) {
    return of_core(mode) || (storage(mode) != nullptr && !storage(mode)->bits().empty());
  };
  const auto rotates = [&](Axis mode) { return storage(mode) != nullptr && storage(mode)->rotates(); };
  const bool rotated_keys = of_core(Axis::key_mode) || rotates(Axis::key_mode);
  const bool rotated_values = point[Axis::value_mode] == "rotated" || rotates(Axis::value_mode);
  if (!has_bits(Axis::key_mode)) clear({Axis::key_bits});
  if (point[Axis::key_mode] != "prod") clear({Axis::sketch, Axis::alpha});
  if (!has_bits(Axis::value_mode)) clear({Axis::value_bits});
  if (point[Axis::value_mode] != "group") clear({Axis::group_size, Axis::equalise});
  if (point[Axis::equalise] == kNone) clear({Axis::equalise});
  if (point[Axis::key_mode] != "mse" && !rotates(Axis::key_mode) && !rotated_values) clear({Axis::scale});
  if (!rotated_keys && !rotated_values) {
    clear({Axis::rotation});
    if (!synthetic || point[Axis::measure] == kPerplexity) clear({Axis::seed});
  }
}

Configuration configure(const Point& point, InputCatalogue& inputs) {
  Configuration configuration;
  configuration.point = point;
  CodecOptions& codec = configuration.codec;
  codec.quantise_keys = point[Axis::key_mode] != kNone;
  codec.quantise_values = point[Axis::value_mode] != kNone;
  const auto choose = [&]<typename Enum>(Axis axis, Enum& value) {
    if (!point[axis].empty()) value = parse_choice<Enum>(info(axis).name, point[axis]);
  };
  choose(Axis::scale, codec.key.scale);
  const auto storage = [&](Axis mode, Axis bits) -> std::optional<StorageConfig> {
    const StorageCodec* found = storage_codec_named(point[mode]);
    if (found == nullptr) return std::nullopt;
    return StorageConfig{found, point[bits].empty() ? 0 : number<int>(point[bits]), codec.key.scale};
  };
  codec.key_storage = storage(Axis::key_mode, Axis::key_bits);
  codec.value_storage = storage(Axis::value_mode, Axis::value_bits);
  if (codec.quantise_keys && !codec.key_storage) {
    choose(Axis::key_mode, codec.key.mode);
    codec.key.bits = number<int>(point[Axis::key_bits]);
  }
  if (codec.quantise_values && !codec.value_storage) {
    choose(Axis::value_mode, codec.value.mode);
    codec.value.bits = number<int>(point[Axis::value_bits]);
    if (!point[Axis::group_size].empty()) codec.value.group_size = number<int>(point[Axis::group_size]);
  }
  choose(Axis::sketch, codec.key.sketch);
  if (const std::string& alpha = point[Axis::alpha]; !alpha.empty() && alpha.front() <= '9') {
    codec.fixed_alpha = number<double>(alpha);
  } else {
    choose(Axis::alpha, codec.alpha);
  }
  codec.equalise_values = point[Axis::equalise] == kChannel;
  choose(Axis::rotation, codec.rotation);
  codec.value.scale = codec.key.scale;
  codec.seed = number<std::uint64_t>(point[Axis::seed]);
  if (point[Axis::measure] == kFused) {
    check_fused(point, codec);
    configuration.fused = {number<int>(point[Axis::heads]), number<int>(point[Axis::gqa])};
  }
  if (point[Axis::measure] == kCapacity) {
    configure_capacity(configuration);
    configuration.key = digest(configuration);
    return configuration;
  }
  if (point[Axis::measure] == kPerplexity) {
    configure_perplexity(configuration, inputs);
    configuration.key = digest(configuration);
    return configuration;
  }

  const CaptureFacts* capture = inputs.find_capture(point[Axis::source]);
  std::size_t vectors;
  if (capture != nullptr) {
    configuration.capture_sha256 = capture->sha256;
    configuration.data.capture = capture->path;
    configuration.num_kv_heads = capture->num_kv_heads;
    vectors = capture->tokens * static_cast<std::size_t>(capture->num_layers);
    for (const int d : capture->head_dims) check(point, configuration, d, capture->queries);
  } else {
    DataKey& data = configuration.data;
    data.distribution = parse_choice<Distribution>("source", point[Axis::source]);
    data.head_dim = number<int>(point[Axis::d]);
    data.rows = number<std::size_t>(point[Axis::rows]);
    data.queries = number<std::size_t>(point[Axis::queries]);
    data.seed = codec.seed;
    data.keys = codec.quantise_keys || data.queries > 0;
    data.values = codec.quantise_values || data.queries > 0;
    vectors = data.rows * (configuration.fused ? static_cast<std::size_t>(configuration.fused->kv_heads) : 1);
    constexpr std::size_t kMostCoordinates = std::size_t{1} << 28;  // a gigabyte a tensor
    if (vectors * static_cast<std::size_t>(data.head_dim) > kMostCoordinates) {
      throw UsageError(
          "{} rows of {} coordinates are more than the {} that are held in memory; leave it out with: "
          "exclude = {}",
          vectors, data.head_dim, kMostCoordinates, rule(point, {Axis::d, Axis::rows, Axis::heads}));
    }
    check(point, configuration, data.head_dim, data.queries > 0);
  }
  const bool fits_alpha =
      codec.quantise_keys && codec.key.mode == KeyMode::prod && codec.alpha != AlphaTarget::unbiased;
  configuration.work = vectors * (fits_alpha ? 2 : 1);
  configuration.key = digest(configuration);
  return configuration;
}

nlohmann::ordered_json to_json(const Point& point) {
  nlohmann::ordered_json json;
  for (const AxisInfo& axis : axes()) {
    const std::string& value = point[axis.axis];
    if (value.empty()) continue;
    if (is_number(axis.axis)) {
      json[axis.name] = number<std::uint64_t>(value);
    } else {
      json[axis.name] = value;
    }
  }
  return json;
}

}  // namespace tq
