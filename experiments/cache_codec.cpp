#include "experiments/cache_codec.h"

#include "core/error.h"

namespace tq {
namespace {

std::shared_ptr<const Rotation> make_rotation(const CodecOptions& options, int head_dim) {
  return std::make_shared<const Rotation>(Rotation::make(options.rotation, head_dim, options.seed));
}

}  // namespace

std::shared_ptr<const KeyCodec> make_key_codec(const CodecOptions& options, int head_dim) {
  validate(options.key, head_dim);
  KeyTables tables = default_key_tables(options.key, head_dim);
  std::shared_ptr<const Sketch> sketch;
  if (options.key.mode == KeyMode::prod) {
    sketch = std::make_shared<const Sketch>(Sketch::make(options.key.sketch, head_dim, options.seed));
    if (options.fixed_alpha) {
      tables.qjl_scale = *options.fixed_alpha;
    } else if (options.alpha != AlphaTarget::unbiased) {
      throw UsageError("alpha {} is fitted to captured keys: tq calibrate does that, then take --artefact",
                       to_string(options.alpha));
    }
  }
  return std::make_shared<const KeyCodec>(options.key, make_rotation(options, head_dim), sketch, tables);
}

std::shared_ptr<const ValueCodec> make_value_codec(const CodecOptions& options, int head_dim) {
  validate(options.value, head_dim);
  const bool rotated = options.value.mode == ValueMode::rotated;
  return std::make_shared<const ValueCodec>(options.value, head_dim,
                                            rotated ? make_rotation(options, head_dim) : nullptr,
                                            default_value_table(options.value, head_dim));
}

std::vector<CacheLayer> uniform_layers(const CodecOptions& options, int layers, int head_dim,
                                       int num_kv_heads) {
  return {
      static_cast<std::size_t>(layers),
      {head_dim, num_kv_heads, {make_key_codec(options, head_dim)}, {make_value_codec(options, head_dim)}}};
}

}  // namespace tq
