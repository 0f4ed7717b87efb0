#include "experiments/calibration_run.h"

#include <fmt/chrono.h>
#include <spdlog/spdlog.h>

#include <charconv>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <ctime>
#include <filesystem>
#include <future>
#include <string_view>
#include <system_error>
#include <vector>

#include "core/error.h"
#include "core/message.h"
#include "core/sha256.h"
#include "datasets/capture_corpus.h"
#include "experiments/processes.h"
#include "experiments/progress_bar.h"
#include "experiments/version.h"

namespace tq {

namespace {

// Processes of several machines may see different files and environments, and would wait for each other
// forever.
void require_agreement(const ProcessGroup& group, const CaptureInfo& info, const CalibrationOptions& options,
                       const Shard& shard) {
  const std::vector<std::string> given = group.all_gather(fmt::format(
      "{} tokens, {} query rows, {} layers, {} KV heads; {}; shard {} of {}", info.tokens, info.query_tokens,
      info.num_layers, info.num_kv_heads, describe(options), shard.index + 1, shard.count));
  for (std::size_t rank = 1; rank < given.size(); ++rank) {
    if (given[rank] != given[0]) {
      throw UsageError("process {} was given '{}', process 0 '{}'", rank, given[rank], given[0]);
    }
  }
}

std::time_t time_of_run() {
  const char* given = std::getenv("SOURCE_DATE_EPOCH");
  if (given == nullptr) return std::time(nullptr);
  const std::string_view text(given);
  std::int64_t seconds = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), seconds);
  constexpr std::int64_t kYear10000 = 253402300800;
  if (error != std::errc() || end != text.data() + text.size() || seconds < 0 || seconds >= kYear10000) {
    throw UsageError("SOURCE_DATE_EPOCH '{}' is no count of seconds since 1970", text);
  }
  return static_cast<std::time_t>(seconds);
}

}  // namespace

ArtefactShard run_calibration(const std::vector<std::string>& captures, Trust trust,
                              const CalibrationOptions& options, const std::string& command_line,
                              const Shard& shard) {
  CaptureCorpus corpus(captures, trust);
  const CaptureInfo& info = corpus.info();
  if (info.query_tokens == 0) {
    spdlog::warn("{}: no queries captured; tables are judged by cosine, which misleads: capture q as well",
                 corpus.path());
  } else if (info.key_basis != "post_rope") {
    spdlog::warn("{}: keys before RoPE; scores cannot be formed, so tables are judged by cosine",
                 corpus.path());
  }
  const ProcessGroup& group = all_processes();
  require_agreement(group, info, options, shard);
  // Hashing reads the same bytes as the first pass, beside it; the processes take the files in turn.
  std::future<std::string> own_digests = std::async(std::launch::async, [&] {
    MessageWriter digests;
    for (std::size_t i = 0; i < captures.size(); ++i) {
      if (i % static_cast<std::size_t>(group.size()) == static_cast<std::size_t>(group.rank()))
        digests(sha256_file_hex(captures[i]));
    }
    return digests.bytes();
  });
  ArtefactShard result{{}, shard, info.num_layers, describe(options)};
  {
    ProgressBar bar("calibrating", calibration_work(info, options, group, shard));
    result.artefact = calibrate(corpus, options, bar.callback(), group, shard);
  }
  const std::vector<std::string> messages = group.all_gather(own_digests.get());
  std::vector<MessageReader> digests(messages.begin(), messages.end());
  std::vector<std::string> sha256;
  for (std::size_t i = 0; i < captures.size(); ++i) {
    digests[i % digests.size()](sha256.emplace_back());
  }
  stamp_provenance(result.artefact.provenance, captures, sha256, command_line);
  return result;
}

void stamp_provenance(Provenance& provenance, const std::vector<std::string>& captures,
                      const std::vector<std::string>& sha256, const std::string& command_line) {
  std::vector<std::string> names;
  for (const std::string& path : captures) names.push_back(std::filesystem::path(path).filename().string());
  provenance.capture_name = fmt::format("{}", fmt::join(names, ", "));
  provenance.capture_sha256 = fmt::format("{}", fmt::join(sha256, ", "));
  provenance.tool_version = fmt::format("tq {} ({})", kVersion, kRevision);
  provenance.command_line = command_line;
  provenance.utc_time = fmt::format("{:%Y-%m-%dT%H:%M:%SZ}", fmt::gmtime(time_of_run()));
}

}  // namespace tq
