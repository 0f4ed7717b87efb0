#include "experiments/tune/problem.h"

#include <fmt/format.h>

#include <algorithm>

#include "kernel_templates/device_tables.h"
#include "shared/launch.h"

namespace tq::tune {
namespace {

KernelSpec with_choice(KernelSpec spec, const BlockChoice& choice) {
  std::visit(
      [&](auto& s) {
        s.warps = choice.warps;
        s.stages = choice.stages;
      },
      spec);
  return spec;
}

int tiles_of(int tokens) { return (tokens + gpu::kTileTokens - 1) / gpu::kTileTokens; }

gpu::AttendSpec attend_spec(const CacheLayer& layer, int group) {
  gpu::AttendSpec spec{};
  spec.quantised = true;
  spec.key = gpu::key_spec(layer.key_codec(0));
  spec.value = gpu::value_spec(layer.value_codec(0));
  spec.head_dim = layer.head_dim;
  spec.query_tiles = gpu::attend_query_tiles(layer.head_dim, group);
  return spec;
}

}  // namespace

std::vector<Problem> problems(const std::vector<bench::AttendShape>& shapes,
                              const std::vector<bench::CodecPair>& codecs) {
  std::vector<Problem> result;
  for (const bench::AttendShape& shape : shapes) {
    for (const bench::CodecPair& pair : codecs) {
      const CacheLayer layer = bench::make_layer(pair, shape.d, 1, 0);
      const LaunchSize scores_size{static_cast<long long>(shape.batch) * shape.kv_heads,
                                   tiles_of(shape.tokens)};
      const gpu::AttendSpec attend = attend_spec(layer, shape.group);
      const int row_heads = gpu::query_heads(attend.query_tiles);
      const LaunchSize attend_size{scores_size.rows * ((shape.group + row_heads - 1) / row_heads),
                                   scores_size.tiles};
      result.push_back({shape, pair, attend, tuning_key(attend, attend_size)});
      const gpu::ScoreSpec scores{attend.key, shape.group > 8 ? 2 : 1, gpu::ScorePart::all, 0, 0};
      result.push_back({shape, pair, scores, tuning_key(scores, scores_size)});
    }
  }
  return result;
}

std::string codec_name(const Problem& problem) {
  return problem.is_scores() ? tq::describe(problem.codecs.key) : bench::describe(problem.codecs);
}

BlockChoice untuned_choice(const Problem& problem, int shared_limit) {
  return std::visit(
      [&](const auto& spec) {
        const auto block = gpu::with_block(spec, shared_limit);
        return BlockChoice{block.warps, block.stages, 0};
      },
      problem.spec);
}

std::vector<BlockChoice> block_candidates(const Problem& problem, int shared_limit) {
  std::vector<BlockChoice> result;
  for (const int warps : {4, 8, 12, 16}) {
    for (const int stages : {1, 2, 3}) {
      const BlockChoice choice{warps, stages, 0};
      if (std::visit([&](const auto& spec) { return fits(spec, choice, shared_limit); }, problem.spec))
        result.push_back(choice);
    }
  }
  return result;
}

std::vector<BlockChoice> with_block_counts(const BlockChoice& choice, int multiprocessors, int slots) {
  std::vector<BlockChoice> result;
  for (const int blocks : {0, multiprocessors, slots, 2 * slots}) {
    const BlockChoice candidate{choice.warps, choice.stages, blocks};
    if (std::find(result.begin(), result.end(), candidate) == result.end()) result.push_back(candidate);
  }
  return result;
}

KernelSource kernel_source(const Problem& problem, const BlockChoice& choice) {
  const KernelSpec spec = with_choice(problem.spec, choice);
  if (const auto* scores = std::get_if<gpu::ScoreSpec>(&spec)) return gpu::scores_kernel(*scores);
  return gpu::attend_kernel(std::get<gpu::AttendSpec>(spec));
}

int shared_bytes(const Problem& problem, const BlockChoice& choice) {
  const KernelSpec spec = with_choice(problem.spec, choice);
  if (const auto* scores = std::get_if<gpu::ScoreSpec>(&spec)) return gpu::score_shared_bytes(*scores);
  return gpu::attend_shared_bytes(std::get<gpu::AttendSpec>(spec));
}

std::string describe(const BlockChoice& choice) {
  return fmt::format("{} warps, {} stage{}{}", choice.warps, choice.stages, choice.stages == 1 ? "" : "s",
                     choice.blocks == 0 ? "" : fmt::format(", {} blocks", choice.blocks));
}

}  // namespace tq::tune
