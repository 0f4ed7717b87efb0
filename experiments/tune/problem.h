#pragma once

#include <string>
#include <variant>
#include <vector>

#include "experiments/bench/attend_case.h"
#include "kernel_templates/kernels.h"
#include "kernel_templates/tuning.h"

namespace tq::tune {

using KernelSpec = std::variant<gpu::AttendSpec, gpu::ScoreSpec>;

// What a block is chosen for: a kernel, of a codec, on a shape.
struct Problem {
  bench::AttendShape shape;
  bench::CodecPair codecs;
  KernelSpec spec;  // without its block
  TuningKey key;

  bool is_scores() const { return std::holds_alternative<gpu::ScoreSpec>(spec); }
};

// Of every shape and codec, attention and scores. Throws UsageError for a codec that has no kernels. Needs no
// GPU.
std::vector<Problem> problems(const std::vector<bench::AttendShape>& shapes,
                              const std::vector<bench::CodecPair>& codecs);

// "mse4-nc / rotated4-nc"; scores read keys alone: "mse4-nc"
std::string codec_name(const Problem& problem);

// What an untuned device takes.
BlockChoice untuned_choice(const Problem& problem, int shared_limit);
// 4, 8, 12 or 16 warps of 1 to 3 stages that fit, the number of blocks left as untuned.
std::vector<BlockChoice> block_candidates(const Problem& problem, int shared_limit);
// The same for some numbers of blocks, where `slots` of them fill the device: as untuned, one a
// multiprocessor, the device full once and twice.
std::vector<BlockChoice> with_block_counts(const BlockChoice& choice, int multiprocessors, int slots);

KernelSource kernel_source(const Problem& problem, const BlockChoice& choice);
int shared_bytes(const Problem& problem, const BlockChoice& choice);

// "8 warps, 1 stage, 264 blocks"; without blocks where they are as untuned.
std::string describe(const BlockChoice& choice);

}  // namespace tq::tune
