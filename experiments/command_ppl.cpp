#include <fmt/format.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "experiments/command_line.h"
#include "experiments/commands.h"
#include "experiments/language_model/model_text.h"
#include "experiments/language_model/perplexity.h"
#include "experiments/model_caches.h"
#include "experiments/progress_bar.h"
#include "experiments/table.h"

namespace tq {
namespace po = boost::program_options;

namespace {

using Json = nlohmann::ordered_json;

// Windows of a model of long context take longer and say no more.
constexpr int kLongestDefaultContext = 2048;

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

std::string report_text(const PerplexityReport& report, std::size_t context, const ModelCaches& caches,
                        const CacheSizes& sizes) {
  Table table(
      {"positions", "cache", "nats/token", "+-", "perplexity", "increase", "+-", "KL", "+-", "top-1"});
  add_rows(table, "all", caches.name, report.all);
  if (report.far) {
    table.rule();
    add_rows(table, "beyond the exact", caches.name, *report.far);
  }
  std::string text =
      fmt::format("{} window{} of {} tokens", report.windows, report.windows == 1 ? "" : "s", context);
  if (caches.quantises) {
    text += fmt::format("; exact: the first {} and the newest {}", caches.policy.sinks, caches.policy.recent);
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

Json report_json(const PerplexityReport& report, std::size_t context, const ModelCaches& caches,
                 const CacheSizes& sizes) {
  return {{"cache", caches.name},
          {"windows", report.windows},
          {"context", context},
          {"recent_window", caches.policy.recent},
          {"first_tokens", caches.policy.sinks},
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
      "json", po::bool_switch(), "JSON instead of a table");
  add_model_cache_options(line);
  if (!line.parse(arguments)) return ExitCode::done;

  const LanguageModel model(line.required("model"));
  const ModelConfig& config = model.config();
  const std::size_t context = read_context(line, config);
  const ModelCaches caches = read_model_caches(line, config);
  const TextWindows windows(read_tokens(line, config), context);
  PerplexityReport report;
  {
    ProgressBar bar("reading", 2 * windows.count() * context * static_cast<std::size_t>(config.num_layers));
    const Progress progress = bar.callback();
    report = measure_perplexity(
        model, windows, caches.first_far_position(),
        [&](std::size_t window) {
          return model.read(windows[window], *caches.baseline, [&] { progress(context); });
        },
        *caches.cache, progress);
  }
  const CacheSizes sizes{static_cast<double>(caches.cache->bytes()) / static_cast<double>(context),
                         static_cast<double>(caches.baseline->bytes()) / static_cast<double>(context)};
  if (line.get<bool>("json")) {
    fmt::print("{}\n", report_json(report, context, caches, sizes).dump(2));
  } else {
    fmt::print("{}", report_text(report, context, caches, sizes));
  }
  return ExitCode::done;
}

}  // namespace tq
