#pragma once

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <string>
#include <string_view>

#include <fmt/format.h>

#include "calibration/artefact/artefact.h"
#include "datasets/hdf5.h"
#include "datasets/input_tree.h"

// What the writers and readers of the master copy and of its shards share.
namespace tq {

inline constexpr std::string_view kArtefactFormat = "turboquant-artefact";
inline constexpr std::string_view kShardFormat = "turboquant-artefact-shard";
// 2: the attribute evidence_sha256. Files of version 1 are still read.
inline constexpr std::int64_t kArtefactVersion = 2;

// Extents of /layers/NNN/metrics/{key,value}/scores are candidates x kScoreParts x kScoreMetrics, NaN where a
// metric was not measured.
inline constexpr std::size_t kScoreParts = 2;
inline constexpr std::size_t kScoreMetrics = 5;
inline constexpr std::string_view kScorePartNames = "fit, held_out";
inline constexpr std::string_view kScoreMetricNames =
    "relative_mse, cosine, softmax_kl, top1_agreement, output_error";

// All of a file but what a shard adds to it. `format`: what its attribute of that name says; `more`:
// attributes of the root that the caller reads.
void write_contents(const hdf5::Object& root, const Artefact& artefact, std::string_view format);
Artefact read_contents(const hdf5::InputGroup& root, const std::string& path, std::string_view format,
                       std::initializer_list<std::string_view> more = {});

inline std::string layer_name(std::size_t index) { return fmt::format("{:03}", index); }
inline std::string candidate_name(std::size_t index) { return fmt::format("candidate_{}", index); }

}  // namespace tq
