#include "kernel_templates/gpu_codec.h"

#include <algorithm>

#include "core/error.h"
#include "kernel_templates/kernels.h"
#include "kernel_templates/shapes.h"
#include "kernel_templates/spec_text.h"
#include "shared/hadamard_lanes.h"
#include "shared/launch.h"

namespace tq::gpu {
namespace {

// Blocks that share `tiles` of a head: a block fills its tables once, so no more than fill the device.
unsigned encode_blocks(const Device& device, int blocks_per_multiprocessor, int tiles, int heads) {
  const int wanted = blocks_per_multiprocessor * device.info().multiprocessors / std::max(1, heads);
  return static_cast<unsigned>(std::min(tiles, std::max(1, wanted)));
}

constexpr int kEncodeBlocks = 8;  // of device/encode.cuh's, a multiprocessor

unsigned blocks(i64 count, i64 per_block) {
  return static_cast<unsigned>((count + per_block - 1) / per_block);
}

std::vector<const KeyCodec*> rotated_codecs(const std::vector<const ValueCodec*>& heads) {
  std::vector<const KeyCodec*> result;
  for (const ValueCodec* head : heads) result.push_back(head->rotated());
  return result;
}

}  // namespace

Ranges one_range(int first, int count) {
  Ranges ranges;
  ranges.one = {first, count, 0, 0, 0};
  ranges.most_tiles = count == 0 ? 0 : (first + count - 1) / kTileTokens - first / kTileTokens + 1;
  ranges.most_tokens = count;
  return ranges;
}

void check_alignment(const VectorView& vectors, Element element, const char* what) {
  const i64 unit = 16 / element_bytes(element);
  if (reinterpret_cast<std::uintptr_t>(vectors.data) % 16 != 0 || vectors.token_stride % unit != 0 ||
      vectors.head_stride % unit != 0 || vectors.sequence_stride % unit != 0) {
    throw UsageError("{}: address and strides must be multiples of 16 bytes", what);
  }
}

GpuKeyCodec::GpuKeyCodec(GpuContext& gpu, const std::vector<const KeyCodec*>& heads, Side side)
    : gpu_(gpu), tables_(gpu.device(), heads), side_(side) {}

void GpuKeyCodec::encode(const VectorView& x, Element element, int heads, const Ranges& ranges,
                         const TileView& out, bool round_to_half, StreamRef stream) {
  check_alignment(x, element, "encode");
  const EncodeSpec spec{tables_.spec(), side_, Layout::tiles, element};
  EncodeParams p{};
  p.x = x;
  p.ranges = ranges.device;
  p.range = ranges.one;
  p.tables = tables_.tables();
  p.table_stride = tables_.per_head();
  p.heads = heads;
  p.round_to_half = round_to_half ? 1 : 0;
  p.rotation = tables_.rotation();
  p.sketch = tables_.sketch();
  p.tiles = out;
  const bool halves = encodes_halves(spec) && (element == Element::f16 || round_to_half);
  const Kernel& kernel = gpu_.kernels().get(halves ? encode_halves_kernel(spec) : encode_kernel(spec));
  const unsigned shared =
      static_cast<unsigned>(halves ? encode_halves_shared_bytes(spec) : encode_shared_bytes(spec));
  const int resident = halves ? kernel.max_active_blocks(kEncodeThreads, shared) : kEncodeBlocks;
  launch(kernel,
         {{encode_blocks(gpu_.device(), resident, ranges.most_tiles, heads * ranges.sequences),
           static_cast<unsigned>(heads), static_cast<unsigned>(ranges.sequences)},
          {kEncodeThreads},
          shared},
         stream, p);
}

void GpuKeyCodec::encode(const VectorView& x, Element element, int heads, int rows, const CanonicalKeys& out,
                         StreamRef stream) {
  check_alignment(x, element, "encode");
  const EncodeSpec spec{tables_.spec(), side_, Layout::canonical, element};
  EncodeParams p{};
  p.x = x;
  p.range = {0, rows, 0, 0, 0};
  p.tables = tables_.tables();
  p.table_stride = tables_.per_head();
  p.heads = heads;
  p.rotation = tables_.rotation();
  p.sketch = tables_.sketch();
  p.canonical = out;
  p.canonical_rows = rows;
  launch(gpu_.kernels().get(encode_kernel(spec)),
         {{encode_blocks(gpu_.device(), kEncodeBlocks, static_cast<int>(blocks(rows, kTileTokens)), heads),
           static_cast<unsigned>(heads)},
          {kEncodeThreads},
          static_cast<unsigned>(encode_shared_bytes(spec))},
         stream, p);
}

void GpuKeyCodec::decode(const TileView& tiles, int heads, const Ranges& ranges, const VectorView& out,
                         Element element, StreamRef stream) {
  check_alignment(out, element, "decode");
  const DecodeSpec spec{tables_.spec(), side_, Layout::tiles, element};
  EncodeParams p{};
  p.x = out;
  p.ranges = ranges.device;
  p.range = ranges.one;
  p.tables = tables_.tables();
  p.table_stride = tables_.per_head();
  p.alpha = tables_.alpha_over_d();
  p.heads = heads;
  p.rotation = tables_.rotation_back();
  p.sketch = tables_.sketch_back();
  p.tiles = tiles;
  launch(gpu_.kernels().get(decode_kernel(spec)),
         {{blocks(ranges.most_tokens, kVectorRows), static_cast<unsigned>(heads),
           static_cast<unsigned>(ranges.sequences)},
          {kDecodeThreads},
          static_cast<unsigned>(decode_shared_bytes(spec.key))},
         stream, p);
}

void GpuKeyCodec::decode(const CanonicalKeys& codes, int heads, int rows, const VectorView& out,
                         Element element, StreamRef stream) {
  check_alignment(out, element, "decode");
  const DecodeSpec spec{tables_.spec(), side_, Layout::canonical, element};
  EncodeParams p{};
  p.x = out;
  p.range = {0, rows, 0, 0, 0};
  p.tables = tables_.tables();
  p.table_stride = tables_.per_head();
  p.alpha = tables_.alpha_over_d();
  p.heads = heads;
  p.rotation = tables_.rotation_back();
  p.sketch = tables_.sketch_back();
  p.canonical = codes;
  p.canonical_rows = rows;
  launch(gpu_.kernels().get(decode_kernel(spec)),
         {{blocks(rows, kVectorRows), static_cast<unsigned>(heads)},
          {kDecodeThreads},
          static_cast<unsigned>(decode_shared_bytes(spec.key))},
         stream, p);
}

void GpuKeyCodec::prepare(const void* queries, Element element, i64 rows, float* rotated, float* sketched,
                          StreamRef stream) {
  const KeySpec& key = tables_.spec();
  const RotateParams p{queries, rotated, sketched, rows, tables_.rotation(), tables_.sketch()};
  launch(gpu_.kernels().get(rotate_kernel({key, element})),
         {{blocks(rows, kVectorRows)}, {kRotateThreads}, static_cast<unsigned>(rotate_shared_bytes(key))},
         stream, p);
}

void GpuKeyCodec::scores(const void* queries, Element element, int group, int heads, int sequences,
                         const int* tokens, int most_tokens, const TileView& keys, ScorePart part, float gain,
                         float* out, i64 out_stride, StreamRef stream) {
  if (group < 1 || group > kMaxGroup) {
    throw UsageError("scores: {} query heads a KV head; the kernels take 1 to {}", group, kMaxGroup);
  }
  const int multiprocessors = gpu_.device().info().multiprocessors;
  ScoreSpec spec{tables_.spec(), group > 8 ? 2 : 1, part, 0, 0};
  const int tiles = static_cast<int>(blocks(most_tokens, kTileTokens));
  const BlockChoice choice =
      gpu_.tuning().choose(spec, {static_cast<i64>(heads) * sequences, tiles},
                           static_cast<int>(gpu_.device().info().shared_bytes_per_block));
  spec.warps = choice.warps;
  spec.stages = choice.stages;
  const i64 d = spec.key.head_dim, query_heads = static_cast<i64>(group) * heads;
  ScoreParams p{};
  p.queries = queries;
  p.query_element = element;
  p.query_sequence_stride = query_heads * d;
  p.query_head_stride = d;
  p.group = group;
  p.key = {tables_.centroids(), tables_.centroid_stride(), tables_.alpha_over_d(),
           tables_.per_head(),  tables_.rotation(),        tables_.sketch()};
  p.keys = keys;
  p.tokens = tokens;
  p.out = out;
  p.out_sequence_stride = query_heads * out_stride;
  p.out_stride = out_stride;
  p.gain = gain;
  // The device full once, a block with enough tiles to pay for its tables.
  const Kernel& kernel = gpu_.kernels().get(scores_kernel(spec));
  const unsigned threads = static_cast<unsigned>(spec.warps * kLanes);
  const unsigned shared = static_cast<unsigned>(score_shared_bytes(spec));
  const int slots = choice.blocks > 0
                        ? choice.blocks
                        : multiprocessors * std::max(1, kernel.max_active_blocks(threads, shared));
  const int share =
      std::clamp(slots / std::max(1, heads * sequences), 1, std::max(1, tiles / (spec.warps / 4)));
  launch(kernel,
         {{static_cast<unsigned>(share), static_cast<unsigned>(heads), static_cast<unsigned>(sequences)},
          {threads},
          shared,
          true},
         stream, p);
}

GpuValueCodec::GpuValueCodec(GpuContext& gpu, const std::vector<const ValueCodec*>& heads) : gpu_(gpu) {
  spec_ = value_spec(*heads.front());
  if (spec_.rotated) rotated_.emplace(gpu, rotated_codecs(heads), Side::values);
}

void GpuValueCodec::encode(const VectorView& x, Element element, int heads, const Ranges& ranges,
                           const TileView& out, bool round_to_half, StreamRef stream) {
  if (rotated_) return rotated_->encode(x, element, heads, ranges, out, round_to_half, stream);
  check_alignment(x, element, "encode");
  const GroupParams p{x, ranges.device, ranges.one, heads, round_to_half ? 1 : 0, out, {}, 0};
  launch(gpu_.kernels().get(encode_groups_kernel({spec_.group, Layout::tiles, element})),
         {{static_cast<unsigned>(ranges.most_tiles), static_cast<unsigned>(heads),
           static_cast<unsigned>(ranges.sequences)},
          {kEncodeThreads},
          static_cast<unsigned>(group_shared_bytes(spec_.group))},
         stream, p);
}

void GpuValueCodec::decode(const TileView& tiles, int heads, const Ranges& ranges, const VectorView& out,
                           Element element, StreamRef stream) {
  if (rotated_) return rotated_->decode(tiles, heads, ranges, out, element, stream);
  const GroupParams p{out, ranges.device, ranges.one, heads, 0, tiles, {}, 0};
  launch(gpu_.kernels().get(decode_groups_kernel({spec_.group, Layout::tiles, element})),
         {{blocks(ranges.most_tokens, kVectorRows), static_cast<unsigned>(heads),
           static_cast<unsigned>(ranges.sequences)},
          {kDecodeThreads}},
         stream, p);
}

void GpuValueCodec::encode(const VectorView& x, Element element, int heads, int rows,
                           const CanonicalGroups& out, StreamRef stream) {
  check_alignment(x, element, "encode");
  const GroupParams p{x, nullptr, {0, rows, 0, 0, 0}, heads, 0, {}, out, rows};
  launch(gpu_.kernels().get(encode_groups_kernel({spec_.group, Layout::canonical, element})),
         {{blocks(rows, kTileTokens), static_cast<unsigned>(heads)},
          {kEncodeThreads},
          static_cast<unsigned>(group_shared_bytes(spec_.group))},
         stream, p);
}

void GpuValueCodec::decode(const CanonicalGroups& codes, int heads, int rows, const VectorView& out,
                           Element element, StreamRef stream) {
  const GroupParams p{out, nullptr, {0, rows, 0, 0, 0}, heads, 0, {}, codes, rows};
  launch(gpu_.kernels().get(decode_groups_kernel({spec_.group, Layout::canonical, element})),
         {{blocks(rows, kVectorRows), static_cast<unsigned>(heads)}, {kDecodeThreads}}, stream, p);
}

void wht(GpuContext& gpu, int order, Element element, bool transposed, const void* in, void* out, i64 rows,
         float gain, StreamRef stream) {
  const WhtSpec spec{order, element, transposed};
  const WhtParams p{in, out, rows, gain};
  const int multiprocessors = gpu.device().info().multiprocessors;
  const Kernel& kernel = gpu.kernels().get(wht_kernel(spec));
  if (transforms_halves(spec)) {
    constexpr int kBlockRows = kWhtHalvesThreads / kLanes * kWhtHalvesRows;
    const unsigned shared = static_cast<unsigned>(wht_halves_shared_bytes(order));
    return launch(kernel, {{blocks(rows, kBlockRows)}, {kWhtHalvesThreads}, shared}, stream, p);
  }
  if (wht_is_mixed(order)) {
    const unsigned grid = static_cast<unsigned>(std::min<i64>(rows, 16 * multiprocessors));
    return launch(kernel, {{grid}, {kMixedThreads}, static_cast<unsigned>(order) * 4}, stream, p);
  }
  const i64 block_rows = kWhtThreads / kLanes * (kLanes / hadamard_lanes(order));
  i64 grid = (rows + block_rows - 1) / block_rows;
  // One turn a warp, but for Paley's orders, where a block pays for its start with several.
  if (paley_order(order) > 1) grid = std::min<i64>(grid, 32 * multiprocessors);
  launch(kernel, {{static_cast<unsigned>(grid)}, {kWhtThreads}}, stream, p);
}

}  // namespace tq::gpu
