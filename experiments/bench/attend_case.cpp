#include "experiments/bench/attend_case.h"

#include <fmt/format.h>
#include <omp.h>

#include <algorithm>
#include <cmath>

#include "experiments/bench/float64_attention.h"
#include "experiments/bench/random_vectors.h"
#include "experiments/bench/relative_error.h"

namespace tq::bench {
namespace {

// The kernels round queries, centroids and weights to binary16.
constexpr double kLargestError = 2e-3;

double bytes_of(const AttendShape& shape, const StorageCodec& codec) {
  return static_cast<double>(shape.batch) * shape.kv_heads * shape.tokens * bytes_per_token(codec, shape.d);
}

float softmax_scale(const AttendShape& shape) { return 1 / std::sqrt(static_cast<float>(shape.d)); }

}  // namespace

std::string describe(const AttendShape& shape) {
  return fmt::format("({}, {}, {}) G {} d {}", shape.batch, shape.kv_heads, shape.tokens, shape.group,
                     shape.d);
}

Json parameters_of(const AttendShape& shape, const StorageCodec& codec) {
  return {{"codec", describe(codec)}, {"batch", shape.batch}, {"kv_heads", shape.kv_heads},
          {"tokens", shape.tokens},   {"group", shape.group}, {"d", shape.d}};
}

AttendCase::AttendCase(Run& run, const AttendShape& shape, const StorageCodec& codec,
                       const TokenSource& source)
    : run_(run),
      shape_(shape),
      bytes_(bytes_of(shape, codec)),
      copies_(run.timer.copies(bytes_)),
      storage_(make_storage(run.gpu, {shape.batch * copies_, shape.kv_heads, shape.tokens, shape.d}, codec,
                            run.seed, source, run.timer.stream())),
      step_elements_(static_cast<std::size_t>(shape.batch * shape.kv_heads * shape.group * shape.d)),
      queries_(random_vectors(run.gpu.device(), step_elements_ * static_cast<std::size_t>(copies_),
                              gpu::Element::f16, run.random)),
      out_(run.gpu.device(), queries_.bytes()) {}

Launch AttendCase::launch() {
  return [this](int copy, StreamRef stream) {
    const std::size_t at = static_cast<std::size_t>(copy) * step_elements_;
    gpu::GpuAttention::Call call;
    call.queries = queries_.as<gpu::u16>() + at;
    call.out = out_.as<gpu::u16>() + at;
    call.group = shape_.group;
    call.kv_heads = shape_.kv_heads;
    call.sequences = shape_.batch;
    call.softmax_scale = softmax_scale(shape_);
    storage_->attend(call, copy * shape_.batch, stream);
  };
}

Check AttendCase::check(int heads) {
  const Device& device = run_.gpu.device();
  poison(device, out_);
  const int copy = static_cast<int>(run_.random.below(static_cast<std::uint32_t>(copies_)));
  launch()(copy, run_.timer.stream());
  run_.timer.stream().synchronize();
  const std::size_t d = static_cast<std::size_t>(shape_.d), group = static_cast<std::size_t>(shape_.group);
  const int all = shape_.batch * shape_.kv_heads;
  Check check{"relative_error", 0, kLargestError, 0};
  for (int i = 0; i < std::min(heads, all); ++i) {
    const int head = copy * all + static_cast<int>(run_.random.below(static_cast<std::uint32_t>(all)));
    const std::size_t at = static_cast<std::size_t>(head) * group * d * 2;
    const std::vector<float> q =
        download_vectors(device, queries_.address() + at, group * d, gpu::Element::f16);
    std::vector<Float64Attention> parts(static_cast<std::size_t>(omp_get_max_threads()),
                                        Float64Attention(q, d, static_cast<double>(softmax_scale(shape_))));
    storage_->for_each_block(
        head / shape_.kv_heads, head % shape_.kv_heads, [&](const TokenStorage::Block& block) {
          parts[static_cast<std::size_t>(block.thread)].add(block.k, block.v, block.rows);
        });
    for (std::size_t part = 1; part < parts.size(); ++part) parts[0].merge(parts[part]);
    const std::vector<double> expected = parts[0].result();
    const std::vector<float> out =
        download_vectors(device, out_.address() + at, group * d, gpu::Element::f16);
    for (std::size_t g = 0; g < group; ++g) {
      keep_larger(check.value,
                  relative_error(std::span(out).subspan(g * d, d), std::span(expected).subspan(g * d, d)));
      ++check.compared;
    }
  }
  return check;
}

}  // namespace tq::bench
