#include "experiments/cache_codec.h"

#include "core/error.h"

namespace tq {

std::vector<CacheLayer> uniform_layers(const CodecOptions& options, int layers, int head_dim,
                                       int num_kv_heads) {
  validate_head_dim(head_dim);
  validate(options.key, head_dim);
  validate(options.value, head_dim);
  const auto rotation =
      std::make_shared<const Rotation>(Rotation::make(options.rotation, head_dim, options.seed));
  KeyTables tables = default_key_tables(options.key, head_dim);
  std::shared_ptr<const Sketch> sketch;
  if (options.key.mode == KeyMode::prod) {
    sketch = std::make_shared<const Sketch>(Sketch::make(options.key.sketch, head_dim, options.seed));
    if (options.fixed_alpha) {
      tables.qjl_scale = *options.fixed_alpha;
    } else if (options.alpha != AlphaTarget::unbiased) {
      throw UsageError("--alpha {} is fitted to captured keys: tq calibrate does that, then take --artefact",
                       to_string(options.alpha));
    }
  }
  const bool rotated = options.value.mode == ValueMode::rotated;
  CacheLayer layer{head_dim, num_kv_heads, {}, {}};
  layer.keys = {std::make_shared<const KeyCodec>(options.key, rotation, sketch, tables)};
  layer.values = {std::make_shared<const ValueCodec>(options.value, head_dim, rotated ? rotation : nullptr,
                                                     default_value_table(options.value, head_dim))};
  return {static_cast<std::size_t>(layers), layer};
}

}  // namespace tq
