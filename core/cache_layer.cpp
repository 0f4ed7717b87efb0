#include "core/cache_layer.h"

#include <string>

#include "core/error.h"
#include "core/field_hash.h"

namespace tq {
namespace {

void check_count(const char* what, std::size_t count, int num_kv_heads) {
  if (count != 1 && count != static_cast<std::size_t>(num_kv_heads)) {
    throw UsageError("KV cache: {} {} codecs, must be 1 or one for each of {} KV heads", count, what,
                     num_kv_heads);
  }
}

template <typename Codec>
void check_codecs(const char* what, const std::vector<std::shared_ptr<const Codec>>& codecs,
                  const CacheLayer& layer) {
  check_count(what, codecs.size(), layer.num_kv_heads);
  for (const auto& codec : codecs) {
    if (!codec) throw UsageError("KV cache: a {} codec is missing", what);
    if (codec->head_dim() != layer.head_dim) {
      throw UsageError("KV cache: a {} codec for head_dim {} in a layer of {}", what, codec->head_dim(),
                       layer.head_dim);
    }
    // describe() names the fields that the mode uses: the others may differ.
    const std::string first = describe(codecs.front()->config()), own = describe(codec->config());
    if (own != first) throw UsageError("KV cache: {} and {} {}s in one layer", first, own, what);
  }
}

void add(FieldHash& hash, const Rotation& rotation) {
  hash.text(to_string(rotation.kind()));
  hash.numbers(rotation.signs());
  hash.numbers(rotation.permutation());
  hash.numbers(rotation.matrix());
}

void add(FieldHash& hash, const Sketch& sketch) {
  if (sketch.kind() == SketchKind::orthogonal) {
    add(hash, sketch.rht());
  } else {
    hash.text(to_string(sketch.kind()));
    hash.numbers(sketch.matrix());
  }
}

void add(FieldHash& hash, const std::vector<double>& values) {
  const std::vector<float> single(values.begin(), values.end());
  hash.numbers(single);
}

void add(FieldHash& hash, const KeyCodec& codec) {
  hash.text(describe(codec.config()));
  add(hash, codec.rotation());
  add(hash, codec.tables().codebook.centroids);
  add(hash, codec.tables().codebook.boundaries);
  add(hash, std::vector<double>{codec.tables().qjl_scale});
  if (codec.config().mode == KeyMode::prod) add(hash, *codec.sketch());
}

void add(FieldHash& hash, const ValueCodec& codec) {
  hash.text(describe(codec.config()));
  if (codec.rotated() != nullptr) add(hash, *codec.rotated());
}

}  // namespace

void validate(const CacheLayer& layer) {
  if (layer.head_dim < 16 || layer.head_dim > 1024 || layer.head_dim % 8 != 0) {
    throw UsageError("KV cache: head_dim is {}, must be a multiple of 8 from 16 to 1024", layer.head_dim);
  }
  constexpr int kMaxHeads = 4096;
  if (layer.num_kv_heads < 1 || layer.num_kv_heads > kMaxHeads) {
    throw UsageError("KV cache: {} KV heads, must be from 1 to {}", layer.num_kv_heads, kMaxHeads);
  }
  if (layer.keys.empty() != layer.values.empty()) {
    throw UsageError("KV cache: a layer quantises both keys and values, or neither");
  }
  if (layer.exact()) return;
  check_codecs("key", layer.keys, layer);
  check_codecs("value", layer.values, layer);
}

std::array<std::uint8_t, 32> fingerprint(const CacheLayer& layer) {
  FieldHash hash;
  hash.text("turboquant-cache-layer");
  hash.integer(1);  // of this serialisation
  hash.integer(layer.head_dim);
  hash.integer(layer.num_kv_heads);
  // Every head's codec, so that one codec given once a head is the same layer as one for all.
  for (int head = 0; !layer.exact() && head < layer.num_kv_heads; ++head) {
    add(hash, layer.key_codec(head));
    add(hash, layer.value_codec(head));
  }
  return hash.finish();
}

}  // namespace tq
