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
#include "core/sha256.h"
#include "experiments/processes.h"
#include "experiments/progress_bar.h"
#include "experiments/version.h"

namespace tq {

namespace {

// Processes of several machines may see different files and environments, and would wait for each other
// forever.
void require_agreement(const ProcessGroup& group, const CaptureInfo& info,
                       const CalibrationOptions& options) {
  const std::vector<std::string> given =
      group.all_gather(fmt::format("{} tokens, {} query rows, {} layers, {} KV heads; {}", info.tokens,
                                   info.query_tokens, info.num_layers, info.num_kv_heads, describe(options)));
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

Artefact run_calibration(const std::string& capture_path, const CalibrationOptions& options,
                         const std::string& command_line) {
  CaptureReader capture(capture_path);
  const CaptureInfo& info = capture.info();
  if (info.query_tokens == 0) {
    spdlog::warn("{}: no queries captured; tables are judged by cosine, which misleads: capture q as well",
                 capture_path);
  } else if (info.key_basis != "post_rope") {
    spdlog::warn("{}: keys before RoPE; scores cannot be formed, so tables are judged by cosine",
                 capture_path);
  }
  const ProcessGroup& group = all_processes();
  require_agreement(group, info, options);
  // Hashing reads the same bytes as the first pass, beside it; the first process alone writes the artefact.
  std::future<std::string> digest;
  if (group.rank() == 0) digest = std::async(std::launch::async, sha256_file_hex, capture_path);
  Artefact artefact;
  {
    ProgressBar bar("calibrating", calibration_work(info, options, group));
    artefact = calibrate(capture, options, bar.callback(), group);
  }
  if (group.rank() == 0) {
    stamp_provenance(artefact.provenance, capture_path, digest.get(), command_line);
  }
  return artefact;
}

void stamp_provenance(Provenance& provenance, const std::string& capture_path,
                      const std::string& capture_sha256, const std::string& command_line) {
  provenance.capture_sha256 = capture_sha256;
  provenance.capture_name = std::filesystem::path(capture_path).filename().string();
  provenance.tool_version = fmt::format("tq {} ({})", kVersion, kRevision);
  provenance.command_line = command_line;
  provenance.utc_time = fmt::format("{:%Y-%m-%dT%H:%M:%SZ}", fmt::gmtime(time_of_run()));
}

}  // namespace tq
