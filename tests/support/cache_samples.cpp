#include "tests/support/cache_samples.h"

#include <cmath>
#include <sstream>

#include "tests/support/test_seed.h"

namespace tq::test {
namespace {

Codebook scaled(Codebook codebook, double factor) {
  for (double& c : codebook.centroids) c *= factor;
  codebook.boundaries = midpoint_boundaries(codebook.centroids);
  return codebook;
}

}  // namespace

CacheLayer codec_layer(int head_dim, int num_kv_heads, const KeyConfig& key, const ValueConfig& value,
                       bool codec_per_head, Random& random) {
  CacheLayer layer{head_dim, num_kv_heads, {}, {}};
  const auto rotation = std::make_shared<const Rotation>(
      Rotation::make(key.bits % 2 == 0 ? RotationKind::qr : RotationKind::rht, head_dim, random.bits64()));
  const auto sketch = std::make_shared<const Sketch>(Sketch::make(key.sketch, head_dim, random.bits64()));
  for (int head = 0; head < (codec_per_head ? num_kv_heads : 1); ++head) {
    KeyTables tables = default_key_tables(key, head_dim);
    tables.codebook = scaled(tables.codebook, 1 - 0.05 * head);
    if (key.mode == KeyMode::prod) tables.qjl_scale = 0.8 + 0.1 * head;
    layer.keys.push_back(std::make_shared<const KeyCodec>(key, rotation, sketch, tables));
    Codebook codebook = default_value_table(value, head_dim);
    if (value.mode == ValueMode::rotated) codebook = scaled(codebook, 1 - 0.03 * head);
    layer.values.push_back(std::make_shared<const ValueCodec>(value, head_dim, rotation, codebook));
  }
  return layer;
}

CacheLayer exact_layer(int head_dim, int num_kv_heads) { return {head_dim, num_kv_heads, {}, {}}; }

std::vector<CacheLayer> sample_layers(int head_dim, int num_kv_heads, Random& random) {
  const int group = head_dim % 32 == 0 ? 32 : 16;
  const auto layer = [&](const KeyConfig& key, const ValueConfig& value, bool codec_per_head) {
    return codec_layer(head_dim, num_kv_heads, key, value, codec_per_head, random);
  };
  return {
      layer({KeyMode::mse, 3, ScaleRule::nc, {}}, {ValueMode::rotated, 3, 32, ScaleRule::nc}, false),
      layer({KeyMode::mse, 4, ScaleRule::ls, {}}, {ValueMode::rotated, 2, 32, ScaleRule::norm}, true),
      layer({KeyMode::prod, 3, ScaleRule::nc, SketchKind::orthogonal},
            {ValueMode::group, 2, group, ScaleRule::nc}, true),
      layer({KeyMode::prod, 4, ScaleRule::nc, SketchKind::gaussian},
            {ValueMode::group, 3, group, ScaleRule::nc}, false),
      layer({KeyMode::mse, 2, ScaleRule::norm, {}}, {ValueMode::group, 8, group, ScaleRule::nc}, false),
      exact_layer(head_dim, num_kv_heads),
  };
}

std::string describe(const CacheLayer& layer) {
  if (layer.exact()) return "exact";
  return tq::describe(layer.key_codec(0).config()) + " " + tq::describe(layer.value_codec(0).config());
}

SampleTokens::SampleTokens(const CacheLayer& layer, std::size_t tokens, Random& random)
    : width(static_cast<std::size_t>(layer.num_kv_heads) * static_cast<std::size_t>(layer.head_dim)),
      k(normal_values(random, tokens * width, 1.5)),
      v(normal_values(random, tokens * width)) {}

std::string saved(const KvCache& cache) {
  std::ostringstream stream;
  cache.save(stream);
  return stream.str();
}

}  // namespace tq::test
