#include "experiments/language_model/retrieval.h"

#include <algorithm>
#include <map>
#include <sstream>

#include "core/error.h"
#include "datasets/input_file.h"
#include "datasets/json_strict.h"

namespace tq {
namespace {

constexpr std::size_t kMostBytes = std::size_t{1} << 28;
constexpr std::size_t kMostQueries = std::size_t{1} << 20;

RetrievalQuery read_query(const JsonNode& node, const std::string& text) {
  const auto size = static_cast<std::int64_t>(text.size());
  const std::int64_t begin = node.at("answer_start").integer(1, size);
  const std::int64_t length = node.at("answer_length").integer(1, size - begin);
  const std::int64_t distance = node.at("distance").integer(1, begin);
  const RetrievalQuery query{static_cast<std::size_t>(begin), static_cast<std::size_t>(length),
                             static_cast<std::size_t>(distance)};
  if (text.compare(query.begin, query.length, text, query.begin - query.distance, query.length) != 0) {
    throw InputError("{}: the answer at {} does not stand {} bytes earlier", node.where(), begin, distance);
  }
  return query;
}

RetrievalDocument read_document(const JsonNode& root) {
  RetrievalDocument document;
  const std::string text = root.at("text").text();
  for (const char byte : text) document.tokens.push_back(static_cast<unsigned char>(byte));
  for (const JsonNode& node : root.at("queries").items(kMostQueries)) {
    document.queries.push_back(read_query(node, text));
  }
  return document;
}

// Whether the most probable token is the true one, for every token of the document but the first.
std::vector<char> predicted_right(const LanguageModel& model, const RetrievalDocument& document,
                                  AttentionCache& cache) {
  const auto vocab_size = static_cast<std::size_t>(model.config().vocab_size);
  const std::vector<float> states = model.read(document.tokens, cache, [] {});
  std::vector<float> logits(document.tokens.size() * vocab_size);
  model.logits(states.data(), document.tokens.size(), logits.data());
  std::vector<char> right(document.tokens.size());
  for (std::size_t t = 1; t < right.size(); ++t) {
    const float* row = &logits[(t - 1) * vocab_size];
    right[t] = std::max_element(row, row + vocab_size) - row == document.tokens[t];
  }
  return right;
}

}  // namespace

std::vector<RetrievalDocument> read_retrieval_documents(const std::string& path) {
  std::istringstream lines(read_input_file(path, kMostBytes));
  std::vector<RetrievalDocument> documents;
  for (std::string line; std::getline(lines, line);) {
    const JsonDocument json(line, fmt::format("{}:{}", path, documents.size() + 1));
    documents.push_back(read_document(json.root()));
  }
  if (documents.empty()) throw InputError("{}: holds no document", path);
  return documents;
}

std::vector<RetrievalBin> measure_retrieval(const LanguageModel& model,
                                            const std::vector<RetrievalDocument>& documents,
                                            AttentionCache& baseline, AttentionCache& cache,
                                            const std::function<void(std::size_t)>& progress) {
  std::map<std::size_t, RetrievalBin> bins;
  for (const RetrievalDocument& document : documents) {
    const std::vector<char> exact = predicted_right(model, document, baseline);
    progress(document.tokens.size());
    const std::vector<char> other = predicted_right(model, document, cache);
    progress(document.tokens.size());
    for (const RetrievalQuery& query : document.queries) {
      const std::size_t distance =
          (query.distance + kRetrievalBinTokens - 1) / kRetrievalBinTokens * kRetrievalBinTokens;
      const auto answered = [&](const std::vector<char>& right) -> std::size_t {
        const auto begin = right.begin() + static_cast<std::ptrdiff_t>(query.begin);
        return std::all_of(begin, begin + static_cast<std::ptrdiff_t>(query.length),
                           [](char r) { return r; });
      };
      RetrievalBin& bin = bins[distance];
      bin.distance = distance;
      ++bin.queries;
      bin.right += answered(other);
      bin.baseline_right += answered(exact);
    }
  }
  std::vector<RetrievalBin> result;
  for (const auto& [distance, bin] : bins) result.push_back(bin);
  return result;
}

}  // namespace tq
