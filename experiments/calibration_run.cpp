#include "experiments/calibration_run.h"

#include <fmt/chrono.h>
#include <spdlog/spdlog.h>

#include <chrono>
#include <ctime>
#include <filesystem>
#include <future>

#include "core/sha256.h"
#include "experiments/progress_bar.h"
#include "experiments/version.h"

namespace tq {

Artefact run_calibration(const std::string& capture_path, Trust trust, const CalibrationOptions& options,
                         const std::string& command_line) {
  CaptureReader capture(capture_path, trust);
  const CaptureInfo& info = capture.info();
  if (info.query_tokens == 0) {
    spdlog::warn("{}: no queries captured; tables are judged by cosine, which misleads: capture q as well",
                 capture_path);
  } else if (info.key_basis != "post_rope") {
    spdlog::warn("{}: keys before RoPE; scores cannot be formed, so tables are judged by cosine",
                 capture_path);
  }
  // Hashing reads the same bytes as the first pass, beside it.
  std::future<std::string> digest = std::async(std::launch::async, sha256_file_hex, capture_path);
  Artefact artefact;
  {
    ProgressBar bar("calibrating", calibration_work(info, options));
    artefact = calibrate(capture, options, bar.callback());
  }
  stamp_provenance(artefact.provenance, capture_path, digest.get(), command_line);
  return artefact;
}

void stamp_provenance(Provenance& provenance, const std::string& capture_path,
                      const std::string& capture_sha256, const std::string& command_line) {
  provenance.capture_sha256 = capture_sha256;
  provenance.capture_name = std::filesystem::path(capture_path).filename().string();
  provenance.tool_version = fmt::format("tq {} ({})", kVersion, kRevision);
  provenance.command_line = command_line;
  provenance.utc_time = fmt::format("{:%Y-%m-%dT%H:%M:%SZ}", fmt::gmtime(std::time(nullptr)));
}

}  // namespace tq
