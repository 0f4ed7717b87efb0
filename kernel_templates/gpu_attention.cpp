#include "kernel_templates/gpu_attention.h"

#include <algorithm>

#include "core/error.h"
#include "kernel_templates/kernels.h"
#include "kernel_templates/shapes.h"
#include "shared/launch.h"

namespace tq::gpu {
namespace {

// Splits of one head's tiles: enough blocks to fill the device once, a tile a warp at least.
int splits_for(int tokens, int warps, int slots, int heads) {
  const int tiles = (tokens + kTileTokens - 1) / kTileTokens;
  const int useful = (tiles + warps - 1) / warps;
  return std::clamp(slots / std::max(1, heads), std::min(1, useful), std::max(useful, 0));
}

}  // namespace

GpuAttention::GpuAttention(GpuContext& gpu, int head_dim) : gpu_(gpu), head_dim_(head_dim) {
  require_kernels(head_dim);
}

GpuAttention::GpuAttention(GpuContext& gpu, const GpuKeyCodec& keys, const GpuValueCodec& values)
    : gpu_(gpu), head_dim_(keys.spec().head_dim), keys_(&keys), values_(&values) {}

AttendSpec GpuAttention::spec_of(int group) const {
  const int query_tiles = attend_query_tiles(head_dim_, group);
  if (keys_ == nullptr) return {false, {}, {}, head_dim_, query_tiles, kAttendWarps};
  return {true, keys_->spec(), values_->spec(), head_dim_, query_tiles, kAttendWarps};
}

void GpuAttention::attend(const Call& call, StreamRef stream) {
  if (call.group < 1 || call.group > kMaxGroup) {
    throw UsageError("attend: {} query heads a KV head; the kernels take 1 to {}", call.group, kMaxGroup);
  }
  if (call.sequences == 0) return;
  const AttendSpec spec = spec_of(call.group);
  const Kernel& kernel = gpu_.kernels().get(attend_kernel(spec));
  const unsigned threads = static_cast<unsigned>(spec.warps * kLanes);
  const unsigned shared = static_cast<unsigned>(attend_shared_bytes(spec));
  const int group_blocks = (call.group + query_heads(spec.query_tiles) - 1) / query_heads(spec.query_tiles);
  const int heads = call.kv_heads * group_blocks * call.sequences;
  const int slots =
      gpu_.device().info().multiprocessors * std::max(1, kernel.max_active_blocks(threads, shared));

  AttendParams p{};
  p.tile_splits = splits_for(call.most_quantised, spec.warps, slots, heads);
  p.exact_splits = splits_for(call.most_exact, spec.warps, slots, heads);
  const int splits = p.tile_splits + p.exact_splits;
  const i64 d = head_dim_, query_heads = static_cast<i64>(call.group) * call.kv_heads;
  const std::size_t rows = static_cast<std::size_t>(call.sequences * query_heads * splits);
  if (partial_softmax_.bytes() < rows * 2 * sizeof(float)) {
    partial_output_ = DeviceBuffer(gpu_.device(), rows * static_cast<std::size_t>(d) * sizeof(float));
    partial_softmax_ = DeviceBuffer(gpu_.device(), rows * 2 * sizeof(float));
  }
  p.queries = call.queries;
  p.query_element = call.element;
  p.query_sequence_stride = query_heads * d;
  p.query_head_stride = d;
  p.group = call.group;
  p.group_blocks = group_blocks;
  p.kv_heads = call.kv_heads;
  p.softmax_scale = call.softmax_scale;
  p.exact = call.exact;
  p.sequences = call.states;
  p.partial_output = partial_output_.as<float>();
  p.partial_softmax = partial_softmax_.as<float>();
  CombineParams c{};
  CombineSpec combine{head_dim_, false, Mixing::hadamard};
  if (keys_ != nullptr) {
    const DeviceKeyTables& tables = keys_->tables();
    p.key = {tables.centroids(), tables.centroid_stride(), tables.alpha_over_d(),
             tables.per_head(),  tables.rotation(),        tables.sketch()};
    p.keys = call.keys;
    p.values = call.values;
    if (const GpuKeyCodec* rotated = values_->rotated()) {
      p.value_centroids = rotated->tables().centroids();
      p.value_table_stride = rotated->tables().centroid_stride();
      c.rotation = rotated->tables().rotation_back();
      combine.rotated = true;
      combine.rotation = rotated->spec().rotation;
    }
  }
  const unsigned head_blocks = static_cast<unsigned>(call.kv_heads * group_blocks),
                 sequences = static_cast<unsigned>(call.sequences);
  launch(kernel, {{static_cast<unsigned>(splits), head_blocks, sequences}, {threads}, shared}, stream, p);

  c.partial_output = p.partial_output;
  c.partial_softmax = p.partial_softmax;
  c.tile_splits = p.tile_splits;
  c.exact_splits = p.exact_splits;
  c.group = call.group;
  c.kv_heads = call.kv_heads;
  c.out = call.out;
  c.out_element = call.out_element;
  c.out_sequence_stride = query_heads * d;
  c.out_head_stride = d;
  c.log_sum_exp = call.log_sum_exp;
  launch(gpu_.kernels().get(combine_kernel(combine)),
         {{static_cast<unsigned>(query_heads), sequences}, {kCombineThreads}}, stream, c);
}

}  // namespace tq::gpu
