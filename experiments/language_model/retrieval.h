#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "experiments/language_model/attention_cache.h"
#include "experiments/language_model/language_model.h"

namespace tq {

// A value that stands in a document twice: a model that looks back finds the second in the first.
struct RetrievalQuery {
  std::size_t begin = 0;     // of the second, from the document's first token
  std::size_t length = 0;    // tokens
  std::size_t distance = 0;  // from the first to the second
};

struct RetrievalDocument {
  std::vector<std::uint32_t> tokens;  // bytes
  std::vector<RetrievalQuery> queries;
};

// A file of JSON, a document a line: {"text": "...", "queries": [{"answer_start", "answer_length",
// "distance"}, ...]}, numbers in bytes of the text (datasets/tiny_lm/retrieval_text.py writes such files).
// Throws InputError for lines that are something else, for no documents, and for answers that do not stand
// `distance` bytes earlier.
std::vector<RetrievalDocument> read_retrieval_documents(const std::string& path);

// The queries whose distance is at most `distance`, and above that of the bin before.
struct RetrievalBin {
  std::size_t distance = 0;
  std::size_t queries = 0;
  std::size_t right = 0, baseline_right = 0;  // of them, answered right
};
inline constexpr std::size_t kRetrievalBinTokens = 256;

// An answer is right when each of its tokens is the most probable one after the true tokens before it. Bins
// without queries are left out. Calls `progress` with the document's tokens after it was read with either
// cache.
std::vector<RetrievalBin> measure_retrieval(const LanguageModel& model,
                                            const std::vector<RetrievalDocument>& documents,
                                            AttentionCache& baseline, AttentionCache& cache,
                                            const std::function<void(std::size_t)>& progress);

}  // namespace tq
