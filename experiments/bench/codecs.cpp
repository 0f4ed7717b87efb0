#include "experiments/bench/codecs.h"

#include <fmt/format.h>

namespace tq::bench {

CodecPair mse_pair(int bits) {
  return {{KeyMode::mse, bits, ScaleRule::nc, SketchKind::orthogonal},
          {ValueMode::rotated, bits, 32, ScaleRule::nc},
          RotationKind::rht};
}

CodecPair prod_pair() {
  return {{KeyMode::prod, 3, ScaleRule::nc, SketchKind::orthogonal},
          {ValueMode::group, 3, 32, ScaleRule::nc},
          RotationKind::rht};
}

std::string describe(const CodecPair& codecs) {
  return fmt::format("{} / {}{}", tq::describe(codecs.key), tq::describe(codecs.value),
                     codecs.rotation == RotationKind::qr ? ", qr" : "");
}

CacheLayer make_layer(const CodecPair& codecs, int head_dim, int kv_heads, std::uint64_t seed) {
  const auto rotation = std::make_shared<const Rotation>(Rotation::make(codecs.rotation, head_dim, seed));
  std::shared_ptr<const Sketch> sketch;
  if (codecs.key.mode == KeyMode::prod) {
    sketch = std::make_shared<const Sketch>(Sketch::make(codecs.key.sketch, head_dim, seed));
  }
  CacheLayer layer;
  layer.head_dim = head_dim;
  layer.num_kv_heads = kv_heads;
  layer.keys.push_back(std::make_shared<const KeyCodec>(codecs.key, rotation, sketch,
                                                        default_key_tables(codecs.key, head_dim)));
  layer.values.push_back(std::make_shared<const ValueCodec>(codecs.value, head_dim, rotation,
                                                            default_value_table(codecs.value, head_dim)));
  return layer;
}

}  // namespace tq::bench
