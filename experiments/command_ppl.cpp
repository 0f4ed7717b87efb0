#include <fmt/format.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "calibration/artefact/cache_layers.h"
#include "core/error.h"
#include "experiments/cache_codec.h"
#include "experiments/codec_options.h"
#include "experiments/command_line.h"
#include "experiments/commands.h"
#include "experiments/cuda_attention_cache.h"
#include "experiments/language_model/model_text.h"
#include "experiments/language_model/perplexity.h"
#include "experiments/progress_bar.h"
#include "experiments/sweep/backends.h"
#include "experiments/table.h"

namespace tq {
namespace po = boost::program_options;

namespace {

using Json = nlohmann::ordered_json;

// Windows of a model of long context take longer and say no more.
constexpr int kLongestDefaultContext = 2048;

struct CacheChoice {
  std::string name;
  std::vector<CacheLayer> layers;  // none: float32
  CachePolicy policy;
};

CacheChoice choose_cache(const CommandLine& line, const ModelConfig& config) {
  const std::string kind = line.get<std::string>("cache");
  if (kind == "float32") {
    if (line.given("artefact") || codec_options_given(line))
      throw UsageError("ppl: --cache float32 has no codec; leave out --artefact and the codec options");
    return {"float32", {}, {}};
  }
  if (kind != "codec") throw UsageError("--cache: '{}' is unknown; codec, float32", kind);
  CacheChoice choice{"", {}, read_policy(line)};
  if (!line.given("artefact")) {
    const CodecOptions options = read_codec_options(line);
    choice.layers = uniform_layers(options, config.num_layers, config.head_dim, config.num_kv_heads);
    choice.name = describe(options.key) + " + " + describe(options.value);
    return choice;
  }
  if (codec_options_given(line))
    throw UsageError("ppl: --artefact brings its own codecs; leave out the codec options");
  const std::string path = line.get<std::string>("artefact");
  const Artefact artefact = read_artefact(path);
  choice.layers = cache_layers(artefact);
  choice.name = path;
  if (artefact.policy && !line.given("recent-window") && !line.given("first-tokens"))
    choice.policy = *artefact.policy;
  return choice;
}

std::vector<std::uint32_t> read_tokens(const CommandLine& line, const ModelConfig& config) {
  if (line.given("text") == line.given("tokens"))
    throw UsageError("ppl: give --text or --tokens, one of them; see tq ppl --help");
  return line.given("text")
             ? read_byte_tokens(line.get<std::string>("model"), config, line.get<std::string>("text"))
             : read_token_file(config, line.get<std::string>("tokens"));
}

std::size_t read_context(const CommandLine& line, const ModelConfig& config) {
  const int context = line.given("context") ? line.get<int>("context")
                                            : std::min(config.max_positions, kLongestDefaultContext);
  if (context < 2 || context > config.max_positions) {
    throw UsageError("--context is {}, must be from 2 to the model's {} positions", context,
                     config.max_positions);
  }
  return static_cast<std::size_t>(context);
}

// Bytes a token when a window is full.
struct CacheSizes {
  double cache, baseline;
};

std::string error_text(const WindowMean& estimate, const char* format) {
  return estimate.standard_error ? fmt::format(fmt::runtime(format), *estimate.standard_error) : "-";
}

void add_rows(Table& table, const std::string& positions, const std::string& name,
              const PredictionMeans& means) {
  const auto perplexity = [](const WindowMean& nats) { return fmt::format("{:.4f}", std::exp(nats.mean)); };
  table.row({positions, "FP16", fmt::format("{:.5f}", means.baseline_nats.mean),
             error_text(means.baseline_nats, "{:.5f}"), perplexity(means.baseline_nats), "", "", "", "", ""});
  table.row({"", name, fmt::format("{:.5f}", means.nats.mean), error_text(means.nats, "{:.5f}"),
             perplexity(means.nats), fmt::format("{:+.5f}", means.nats_increase.mean),
             error_text(means.nats_increase, "{:.5f}"), fmt::format("{:.6f}", means.kl.mean),
             error_text(means.kl, "{:.6f}"), fmt::format("{:.4f}", means.top1_agreement.mean)});
}

std::string report_text(const PerplexityReport& report, std::size_t context, const CacheChoice& choice,
                        const CacheSizes& sizes) {
  Table table(
      {"positions", "cache", "nats/token", "+-", "perplexity", "increase", "+-", "KL", "+-", "top-1"});
  add_rows(table, "all", choice.name, report.all);
  if (report.far) {
    table.rule();
    add_rows(table, "beyond the exact", choice.name, *report.far);
  }
  std::string text = fmt::format("{} windows of {} tokens", report.windows, context);
  if (!choice.layers.empty()) {
    text += fmt::format("; exact: the first {} and the newest {}", choice.policy.sinks, choice.policy.recent);
  }
  text += fmt::format("\n\n{}\na full window's cache: {:.1f} bytes a token, FP16 {:.1f} ({:.2f}x)\n",
                      table.text(), sizes.cache, sizes.baseline, sizes.baseline / sizes.cache);
  return text;
}

Json mean_json(const WindowMean& estimate) {
  return {{"mean", estimate.mean},
          {"standard_error", estimate.standard_error ? Json(*estimate.standard_error) : Json(nullptr)}};
}

Json means_json(const PredictionMeans& means) {
  return {{"positions", means.positions},
          {"nats", mean_json(means.nats)},
          {"perplexity", std::exp(means.nats.mean)},
          {"fp16_nats", mean_json(means.baseline_nats)},
          {"fp16_perplexity", std::exp(means.baseline_nats.mean)},
          {"nats_increase", mean_json(means.nats_increase)},
          {"kl", mean_json(means.kl)},
          {"top1_agreement", mean_json(means.top1_agreement)}};
}

Json report_json(const PerplexityReport& report, std::size_t context, const CacheChoice& choice,
                 const CacheSizes& sizes) {
  return {{"cache", choice.name},
          {"windows", report.windows},
          {"context", context},
          {"recent_window", choice.policy.recent},
          {"first_tokens", choice.policy.sinks},
          {"bytes_per_token", sizes.cache},
          {"fp16_bytes_per_token", sizes.baseline},
          {"all", means_json(report.all)},
          {"beyond_exact", report.far ? means_json(*report.far) : Json(nullptr)}};
}

}  // namespace

ExitCode run_ppl(const Arguments& arguments) {
  CommandLine line(
      "ppl",
      "measure what a codec or an artefact in its cache does to a model's loss, beside the same model "
      "with an FP16 cache",
      "tq ppl --model tiny-lm --text held_out.txt --key-bits 3 --value-bits 3");
  line.add()("model", po::value<std::string>()->value_name("DIR"),
             "Hugging Face folder of a llama, qwen2 or qwen3 model: config.json and safetensors")(
      "text", po::value<std::string>()->value_name("FILE"), "text to predict, where tokens are bytes")(
      "tokens", po::value<std::string>()->value_name("FILE"),
      "tokens to predict, little-endian uint32 (datasets/capture_hf.py --tokens-out)")(
      "context", po::value<int>()->value_name("N"),
      "tokens a window, windows one after the other (default: the model's positions, 2048 at most)")(
      "artefact", po::value<std::string>()->value_name("FILE"), "take codecs and tables from here (*.tq.h5)")(
      "cache", po::value<std::string>()->default_value("codec")->value_name("KIND"),
      "codec, or float32: nothing rounded, to see what FP16 costs")(
      "backend", po::value<std::string>()->default_value("host")->value_name("NAME"),
      "where the caches are and attention runs: host, or cuda (a GPU)")("json", po::bool_switch(),
                                                                        "JSON instead of a table");
  add_policy_options(line, CachePolicy().recent);
  add_codec_options(line, AlphaTarget::unbiased);
  if (!line.parse(arguments)) return ExitCode::done;

  const bool cuda = canonical_backend(line.get<std::string>("backend")) == kCudaBackend;
  const LanguageModel model(line.required("model"));
  const ModelConfig& config = model.config();
  const std::size_t context = read_context(line, config);
  const CacheChoice choice = choose_cache(line, config);
  const TextWindows windows(read_tokens(line, config), context);
  const auto cache_of = [&](const std::vector<CacheLayer>& layers, const CachePolicy& policy) {
    return cuda ? cuda_cache(config, layers, policy) : host_cache(config, layers, policy);
  };
  const auto cache = choice.layers.empty() ? float32_cache(config) : cache_of(choice.layers, choice.policy);
  const auto baseline = cache_of(binary16_layers(config), {});
  // The first position whose query sees a quantised token.
  const std::size_t far_from =
      choice.layers.empty() ? context
                            : window_capacity(choice.policy) + static_cast<std::size_t>(choice.policy.sinks);
  PerplexityReport report;
  {
    ProgressBar bar("reading", 2 * windows.count() * context * static_cast<std::size_t>(config.num_layers));
    const Progress progress = bar.callback();
    report = measure_perplexity(
        model, windows, far_from,
        [&](std::size_t window) {
          return model.read(windows[window], *baseline, [&] { progress(context); });
        },
        *cache, progress);
  }
  const CacheSizes sizes{static_cast<double>(cache->bytes()) / static_cast<double>(context),
                         static_cast<double>(baseline->bytes()) / static_cast<double>(context)};
  if (line.get<bool>("json")) {
    fmt::print("{}\n", report_json(report, context, choice, sizes).dump(2));
  } else {
    fmt::print("{}", report_text(report, context, choice, sizes));
  }
  return ExitCode::done;
}

}  // namespace tq
