#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include <fmt/format.h>

// Names and sizes of the master copy that its writer and its reader share.
namespace tq {

inline constexpr std::string_view kArtefactFormat = "turboquant-artefact";
inline constexpr std::int64_t kArtefactVersion = 1;

// Extents of /layers/NNN/metrics/{key,value}/scores are candidates x kScoreParts x kScoreMetrics, NaN where a
// metric was not measured.
inline constexpr std::size_t kScoreParts = 2;
inline constexpr std::size_t kScoreMetrics = 5;
inline constexpr std::string_view kScorePartNames = "fit, held_out";
inline constexpr std::string_view kScoreMetricNames =
    "relative_mse, cosine, softmax_kl, top1_agreement, output_error";

inline std::string layer_name(std::size_t index) { return fmt::format("{:03}", index); }
inline std::string candidate_name(std::size_t index) { return fmt::format("candidate_{}", index); }

}  // namespace tq
