#include "experiments/bench/score_case.h"

#include <omp.h>

#include <cmath>
#include <vector>

#include "experiments/bench/random_vectors.h"
#include "experiments/bench/relative_error.h"

namespace tq::bench {
namespace {

constexpr double kLargestError = 2e-3;  // as of attention
constexpr float kGain = 0.125f;

}  // namespace

ScoreCase::ScoreCase(Run& run, const AttendShape& shape, const CodecPair& codecs, const TokenSource& source)
    : run_(run),
      shape_(shape),
      heads_(static_cast<std::size_t>(shape.batch * shape.kv_heads)),
      scores_(heads_ * static_cast<std::size_t>(shape.group) * static_cast<std::size_t>(shape.tokens)),
      bytes_(static_cast<double>(heads_) * shape.tokens * tq::bytes_per_token(codecs.key, shape.d) +
             4.0 * static_cast<double>(scores_)),
      copies_(run.timer.copies(bytes_)),
      storage_(run.gpu, {shape.batch * copies_, shape.kv_heads, shape.tokens, shape.d}, codecs, run.seed,
               source, run.timer.stream()),
      queries_(
          random_vectors(run.gpu.device(), all_heads() * query_elements(), gpu::Element::f16, run.random)),
      counts_(run.gpu.device(), static_cast<std::size_t>(shape.batch) * sizeof(int)),
      out_(run.gpu.device(), static_cast<std::size_t>(copies_) * scores_ * sizeof(float)) {
  const CurrentContext current(run.gpu.device());
  upload(counts_.address(), std::vector<int>(static_cast<std::size_t>(shape.batch), shape.tokens));
}

Launch ScoreCase::launch() {
  return [this](int copy, StreamRef stream) {
    const std::size_t c = static_cast<std::size_t>(copy);
    storage_.key_codec().scores(queries_.as<gpu::u16>() + c * heads_ * query_elements(), gpu::Element::f16,
                                shape_.group, shape_.kv_heads, shape_.batch, counts_.as<const int>(),
                                shape_.tokens, storage_.key_tiles(copy * shape_.batch), gpu::ScorePart::all,
                                kGain, out_.as<float>() + c * scores_, shape_.tokens, stream);
  };
}

Check ScoreCase::check(int heads) {
  poison(run_.gpu.device(), out_);
  const int copy = static_cast<int>(run_.random.below(static_cast<std::uint32_t>(copies_)));
  launch()(copy, run_.timer.stream());
  run_.timer.stream().synchronize();
  Check check{"relative_error", 0, kLargestError, 0};
  for (int i = 0; i < heads; ++i) {
    const std::size_t head =
        static_cast<std::size_t>(copy) * heads_ + run_.random.below(static_cast<std::uint32_t>(heads_));
    for (const ErrorSums& sums : errors_of(head)) {
      keep_larger(check.value, std::sqrt(sums.difference / sums.norm));
      ++check.compared;
    }
  }
  return check;
}

std::vector<ScoreCase::ErrorSums> ScoreCase::errors_of(std::size_t head) const {
  const Device& device = run_.gpu.device();
  const std::size_t d = static_cast<std::size_t>(shape_.d), group = static_cast<std::size_t>(shape_.group),
                    tokens = static_cast<std::size_t>(shape_.tokens),
                    kv_heads = static_cast<std::size_t>(shape_.kv_heads);
  const std::vector<float> q = download_vectors(device, queries_.address() + head * group * d * 2, group * d,
                                                gpu::Element::f16),
                           is = download_vectors(device,
                                                 out_.address() + head * group * tokens * sizeof(float),
                                                 group * tokens, gpu::Element::f32);
  std::vector<std::vector<ErrorSums>> parts(static_cast<std::size_t>(omp_get_max_threads()),
                                            std::vector<ErrorSums>(group));
  storage_.for_each_block(
      static_cast<int>(head / kv_heads), static_cast<int>(head % kv_heads),
      [&](const TokenStorage::Block& block) {
        std::vector<ErrorSums>& sums = parts[static_cast<std::size_t>(block.thread)];
        for (std::size_t t = 0; t < block.rows; ++t) {
          for (std::size_t g = 0; g < group; ++g) {
            double score = 0;
            for (std::size_t j = 0; j < d; ++j)
              score += static_cast<double>(q[g * d + j]) * static_cast<double>(block.k[t * d + j]);
            score *= static_cast<double>(kGain);
            const double difference = static_cast<double>(is[g * tokens + block.first + t]) - score;
            sums[g].difference += difference * difference;
            sums[g].norm += score * score;
          }
        }
      });
  for (std::size_t part = 1; part < parts.size(); ++part) {
    for (std::size_t g = 0; g < group; ++g) {
      parts[0][g].difference += parts[part][g].difference;
      parts[0][g].norm += parts[part][g].norm;
    }
  }
  return parts[0];
}

}  // namespace tq::bench
