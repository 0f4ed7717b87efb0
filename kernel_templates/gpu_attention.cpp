#include "kernel_templates/gpu_attention.h"

#include <algorithm>

#include "core/error.h"
#include "kernel_templates/kernels.h"
#include "kernel_templates/shapes.h"
#include "shared/launch.h"

namespace tq::gpu {
namespace {

int tiles_of(int tokens) { return (tokens + kTileTokens - 1) / kTileTokens; }

// Blocks that share `rows` rows of as many tiles each, `slots` at once. Pieces that end where rows end spare
// blocks a second row's queries, tables and sums; that is worth an eighth of the device.
i64 whole_rows(i64 rows, i64 slots) {
  const i64 rows_a_block = (rows + slots - 1) / slots;
  const i64 blocks = rows <= slots ? slots / rows * rows : (rows + rows_a_block - 1) / rows_a_block;
  return blocks * 8 >= slots * 7 ? blocks : slots;
}

}  // namespace

GpuAttention::GpuAttention(GpuContext& gpu, int head_dim) : gpu_(gpu), head_dim_(head_dim) {
  require_kernels(head_dim);
}

GpuAttention::GpuAttention(GpuContext& gpu, const GpuKeyCodec& keys, const GpuValueCodec& values)
    : gpu_(gpu), head_dim_(keys.spec().head_dim), keys_(&keys), values_(&values) {}

AttendSpec GpuAttention::spec_of(int group) const {
  AttendSpec spec{};
  spec.head_dim = head_dim_;
  spec.query_tiles = attend_query_tiles(head_dim_, group);
  if (keys_ != nullptr) {
    spec.quantised = true;
    spec.key = keys_->spec();
    spec.value = values_->spec();
  }
  return spec;
}

void GpuAttention::attend(const Call& call, StreamRef stream) {
  if (call.group < 1 || call.group > kMaxGroup) {
    throw UsageError("attend: {} query heads a KV head; the kernels take 1 to {}", call.group, kMaxGroup);
  }
  if (call.sequences == 0) return;
  AttendSpec spec = spec_of(call.group);
  const int row_heads = query_heads(spec.query_tiles);
  const i64 d = head_dim_, query_heads = static_cast<i64>(call.group) * call.kv_heads;

  AttendParams p{};
  p.group_parts = (call.group + row_heads - 1) / row_heads;
  const i64 rows = static_cast<i64>(call.kv_heads) * p.group_parts * call.sequences;
  const i64 row_tiles = std::max(1, tiles_of(call.most_quantised) + tiles_of(call.most_exact));
  const i64 tiles = rows * row_tiles;
  const BlockChoice choice = gpu_.tuning().choose(
      spec, {rows, row_tiles}, static_cast<int>(gpu_.device().info().shared_bytes_per_block));
  spec.warps = choice.warps;
  spec.stages = choice.stages;
  const Kernel& kernel = gpu_.kernels().get(attend_kernel(spec));
  const unsigned threads = static_cast<unsigned>(spec.warps * kLanes);
  const unsigned shared = static_cast<unsigned>(attend_shared_bytes(spec));
  const i64 slots = static_cast<i64>(gpu_.device().info().multiprocessors) *
                    std::max(1, kernel.max_active_blocks(threads, shared));
  // A block has some tiles at least, to pay for its tables and its part of the sums. A row has a slot a
  // block, and one more in the block where its tokens change from binary16 to tiles.
  const i64 most =
      std::min<i64>(choice.blocks > 0 ? choice.blocks : whole_rows(rows, slots), kCombineSlots - 1);
  const i64 grid = std::clamp<i64>(tiles / std::max(1, spec.warps / 4), 1, most);

  const std::size_t partials = static_cast<std::size_t>((grid + 2 * rows) * row_heads);
  if (partial_softmax_.bytes() < partials * 2 * sizeof(float)) {
    partial_output_ = DeviceBuffer(gpu_.device(), partials * static_cast<std::size_t>(d) * sizeof(float));
    partial_softmax_ = DeviceBuffer(gpu_.device(), partials * 2 * sizeof(float));
  }
  if (finished_.bytes() < static_cast<std::size_t>(rows) * sizeof(u32)) {
    finished_ = DeviceBuffer(gpu_.device(), static_cast<std::size_t>(rows) * sizeof(u32));
    fill(finished_.address(), 0, finished_.bytes(), stream);
  }
  p.queries = call.queries;
  p.query_element = call.element;
  p.query_sequence_stride = query_heads * d;
  p.query_head_stride = d;
  p.group = call.group;
  p.kv_heads = call.kv_heads;
  p.sequence_count = call.sequences;
  p.softmax_scale = call.softmax_scale;
  p.exact = call.exact;
  p.sequences = call.states;
  p.partial_output = partial_output_.as<float>();
  p.partial_softmax = partial_softmax_.as<float>();
  p.finished = finished_.as<u32>();
  p.out = call.out;
  p.out_element = call.out_element;
  p.out_sequence_stride = query_heads * d;
  p.out_head_stride = d;
  p.log_sum_exp = call.log_sum_exp;
  if (keys_ != nullptr) {
    const DeviceKeyTables& tables = keys_->tables();
    p.key = {tables.centroids(), tables.centroid_stride(), tables.alpha_over_d(),
             tables.per_head(),  tables.rotation(),        tables.sketch()};
    p.keys = call.keys;
    p.values = call.values;
    if (const GpuKeyCodec* rotated = values_->rotated()) {
      p.value_centroids = rotated->tables().centroids();
      p.value_table_stride = rotated->tables().centroid_stride();
      p.value_rotation = rotated->tables().rotation_back();
    }
  }
  launch(kernel, {{static_cast<unsigned>(grid)}, {threads}, shared, true}, stream, p);
}

}  // namespace tq::gpu
