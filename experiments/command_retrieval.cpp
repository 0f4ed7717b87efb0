#include <fmt/format.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "experiments/command_line.h"
#include "experiments/commands.h"
#include "experiments/language_model/model_text.h"
#include "experiments/language_model/retrieval.h"
#include "experiments/model_caches.h"
#include "experiments/progress_bar.h"
#include "experiments/table.h"

namespace tq {
namespace po = boost::program_options;

namespace {

using Json = nlohmann::ordered_json;

// A share and its standard error, that of as many draws of a coin.
struct Share {
  double mean, standard_error;
  Share(std::size_t count, std::size_t of)
      : mean(static_cast<double>(count) / static_cast<double>(of)),
        standard_error(std::sqrt(mean * (1 - mean) / static_cast<double>(of))) {}
};

RetrievalBin total(const std::vector<RetrievalBin>& bins) {
  RetrievalBin sum;
  for (const RetrievalBin& bin : bins) {
    sum.queries += bin.queries;
    sum.right += bin.right;
    sum.baseline_right += bin.baseline_right;
  }
  return sum;
}

std::string report_text(const std::vector<RetrievalBin>& bins, const ModelCaches& caches) {
  Table table({"distance up to", "queries", "FP16", "+-", caches.name, "+-"});
  const auto add = [&](const std::string& distance, const RetrievalBin& bin) {
    const Share exact(bin.baseline_right, bin.queries), other(bin.right, bin.queries);
    table.row({distance, fmt::format("{}", bin.queries), fmt::format("{:.4f}", exact.mean),
               fmt::format("{:.4f}", exact.standard_error), fmt::format("{:.4f}", other.mean),
               fmt::format("{:.4f}", other.standard_error)});
  };
  for (const RetrievalBin& bin : bins) add(fmt::format("{}", bin.distance), bin);
  table.rule();
  add("all", total(bins));
  std::string text = "answers copied right, by the tokens from a value to its copy";
  if (caches.quantises) {
    text += fmt::format("; exact: the first {} and the newest {}", caches.policy.sinks, caches.policy.recent);
  }
  return text + "\n\n" + table.text();
}

Json bin_json(const RetrievalBin& bin) {
  const auto share = [&](std::size_t count) -> Json {
    const Share value(count, bin.queries);
    return {{"mean", value.mean}, {"standard_error", value.standard_error}};
  };
  Json entry;
  if (bin.distance > 0) entry["distance_up_to"] = bin.distance;
  entry["queries"] = bin.queries;
  entry["fp16_accuracy"] = share(bin.baseline_right);
  entry["accuracy"] = share(bin.right);
  return entry;
}

Json report_json(const std::vector<RetrievalBin>& bins, const ModelCaches& caches) {
  Json entries = Json::array();
  for (const RetrievalBin& bin : bins) entries.push_back(bin_json(bin));
  return {{"cache", caches.name},
          {"recent_window", caches.policy.recent},
          {"first_tokens", caches.policy.sinks},
          {"by_distance", entries},
          {"all", bin_json(total(bins))}};
}

}  // namespace

ExitCode run_retrieval(const Arguments& arguments) {
  CommandLine line(
      "retrieval",
      "measure how often a model copies a value from far back in its context, with a codec or an "
      "artefact in its cache and with an FP16 cache",
      "tq retrieval --model tiny-lm --documents retrieval.jsonl --key-bits 2 --value-bits 2");
  line.add()("model", po::value<std::string>()->value_name("DIR"),
             "Hugging Face folder, as of tq ppl, of a model whose tokens are bytes")(
      "documents", po::value<std::string>()->value_name("FILE"),
      "documents and what to look for (datasets/tiny_lm/retrieval_text.py)")("json", po::bool_switch(),
                                                                             "JSON instead of a table");
  add_model_cache_options(line);
  if (!line.parse(arguments)) return ExitCode::done;
  const std::string& folder = line.required("model");
  const std::string& path = line.required("documents");
  const LanguageModel model(folder);
  require_byte_tokens(folder, model.config());
  const ModelCaches caches = read_model_caches(line, model.config());
  const std::vector<RetrievalDocument> documents = read_retrieval_documents(path);
  std::size_t tokens = 0, queries = 0;
  for (std::size_t i = 0; i < documents.size(); ++i) {
    const std::size_t size = documents[i].tokens.size();
    if (size > static_cast<std::size_t>(model.config().max_positions)) {
      throw InputError("{}:{}: {} bytes; the model has {} positions", path, i + 1, size,
                       model.config().max_positions);
    }
    tokens += size;
    queries += documents[i].queries.size();
  }
  if (queries == 0) throw InputError("{}: no document asks for anything", path);
  std::vector<RetrievalBin> bins;
  {
    ProgressBar bar("reading", 2 * tokens);
    bins = measure_retrieval(model, documents, *caches.baseline, *caches.cache, bar.callback());
  }
  if (line.get<bool>("json")) {
    fmt::print("{}\n", report_json(bins, caches).dump(2));
  } else {
    fmt::print("{}", report_text(bins, caches));
  }
  return ExitCode::done;
}

}  // namespace tq
