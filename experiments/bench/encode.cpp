#include <fmt/format.h>

#include "experiments/bench/code_differences.h"
#include "experiments/bench/codecs.h"
#include "experiments/bench/random_vectors.h"
#include "experiments/bench/run.h"
#include "experiments/bench/tile_codes.h"
#include "kernel_templates/gpu_codec.h"
#include "kernel_templates/spec_text.h"

// Vectors to tiles.
namespace tq::bench {
namespace {

using gpu::Element;
using gpu::kTileTokens;

constexpr int kDim = 128, kRows = 1 << 20, kTiles = kRows / kTileTokens;
constexpr int kCheckedTiles = 64;  // half a million codes

struct Vectors {
  Element element;
  DeviceBuffer buffer;  // kRows x kDim
};

// Random tiles against core's codes of the same vectors. compare(its bytes, vectors, differences).
template <typename Compare>
Check check_tiles(Run& run, const Vectors& x, const DeviceBuffer& tiles, const Compare& compare) {
  const std::size_t tile_bytes = tiles.bytes() / kTiles, tile_elements = std::size_t{kTileTokens} * kDim;
  CodeDifferences differences;
  std::vector<gpu::u8> tile(tile_bytes);
  const CurrentContext current(run.gpu.device());
  for (int i = 0; i < kCheckedTiles; ++i) {
    const std::size_t t = run.random.below(kTiles);
    download(tile, tiles.address() + t * tile_bytes);
    const DeviceAddress vectors =
        x.buffer.address() + t * tile_elements * static_cast<std::size_t>(gpu::element_bytes(x.element));
    compare(tile.data(), download_vectors(run.gpu.device(), vectors, tile_elements, x.element), differences);
  }
  return differences.check();
}

// `encode` puts all vectors into the tiles.
template <typename Encode, typename Compare>
void measure(Run& run, const std::string& codec, const Vectors& x, int tile_bytes, const Encode& encode,
             const Compare& compare) {
  const DeviceBuffer tiles(run.gpu.device(), std::size_t{kTiles} * static_cast<std::size_t>(tile_bytes));
  const gpu::TileView view{tiles.as<gpu::u8>(), tile_bytes, 0, 0, nullptr, 0};
  const Launch all = [&](int, StreamRef stream) {
    encode(gpu::VectorView{x.buffer.as<void>(), 0, 0, kDim}, gpu::one_range(0, kRows), view, stream);
  };
  poison(run.gpu.device(), tiles);
  all(0, run.timer.stream());
  run.timer.stream().synchronize();
  run.report.measure({fmt::format("encode {} d{} {} 2^20 rows", codec, kDim, gpu::describe(x.element)),
                      "encode",
                      {{"codec", codec}, {"d", kDim}, {"element", gpu::describe(x.element)}, {"rows", kRows}},
                      static_cast<double>(x.buffer.bytes() + tiles.bytes())},
                     check_tiles(run, x, tiles, compare), [&] { return run.timer.throughput(1, all); });
}

void measure_keys(Run& run, const KeyConfig& config, const Vectors& x) {
  const CacheLayer layer = make_layer({config, {}}, kDim, 1, run.seed);
  const KeyCodec& host = layer.key_codec(0);
  gpu::GpuKeyCodec codec(run.gpu, {&host}, gpu::Side::keys);
  measure(
      run, tq::describe(config), x, gpu::tile_bytes(codec.spec()),
      [&](const gpu::VectorView& vectors, const gpu::Ranges& ranges, const gpu::TileView& out,
          StreamRef stream) { codec.encode(vectors, x.element, 1, ranges, out, false, stream); },
      [&](const gpu::u8* tile, const std::vector<float>& vectors, CodeDifferences& differences) {
        EncodedKeys should;
        host.encode(vectors.data(), kTileTokens, should);
        const EncodedKeys is = keys_of_tile(host, gpu::Side::keys, tile, kTileTokens);
        differences.add(host, block_of(is), block_of(std::as_const(should)), kTileTokens);
      });
}

ConstValueBlock value_block(const EncodedValues& values) {
  return std::visit([](const auto& encoded) { return ConstValueBlock(block_of(encoded)); }, values);
}

void measure_values(Run& run, const ValueConfig& config, const Vectors& x) {
  const CacheLayer layer = make_layer({{}, config}, kDim, 1, run.seed);
  const ValueCodec& host = layer.value_codec(0);
  gpu::GpuValueCodec codec(run.gpu, {&host});
  measure(
      run, tq::describe(config), x, gpu::tile_bytes(codec.spec()),
      [&](const gpu::VectorView& vectors, const gpu::Ranges& ranges, const gpu::TileView& out,
          StreamRef stream) { codec.encode(vectors, x.element, 1, ranges, out, false, stream); },
      [&](const gpu::u8* tile, const std::vector<float>& vectors, CodeDifferences& differences) {
        EncodedValues should;
        host.encode(vectors.data(), kTileTokens, should);
        const EncodedValues is = values_of_tile(host, tile, kTileTokens);
        differences.add(host, value_block(is), value_block(should), kTileTokens);
      });
}

}  // namespace

void measure_encode(Run& run) {
  for (const Element element : {Element::f32, Element::f16}) {
    const Vectors x{element,
                    random_vectors(run.gpu.device(), std::size_t{kRows} * kDim, element, run.random)};
    for (const int bits : {2, 3, 4}) measure_keys(run, mse_pair(bits).key, x);
    measure_keys(run, prod_pair().key, x);
    for (const int bits : {3, 4}) measure_values(run, mse_pair(bits).value, x);
    for (const int bits : {2, 3, 4}) measure_values(run, {ValueMode::group, bits, 32, ScaleRule::nc}, x);
  }
}

}  // namespace tq::bench
