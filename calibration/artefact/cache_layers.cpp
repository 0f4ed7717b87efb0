#include "calibration/artefact/cache_layers.h"

#include <map>
#include <memory>

namespace tq {
namespace {

template <typename Object>
std::map<int, std::shared_ptr<const Object>> shared(const std::map<int, Object>& objects) {
  std::map<int, std::shared_ptr<const Object>> result;
  for (const auto& [head_dim, object] : objects)
    result.emplace(head_dim, std::make_shared<const Object>(object));
  return result;
}

}  // namespace

std::vector<CacheLayer> cache_layers(const Artefact& artefact) {
  validate(artefact, "artefact");
  const auto rotations = shared(artefact.rotations);
  const auto sketches = shared(artefact.sketches);
  std::vector<CacheLayer> layers;
  for (const LayerArtefact& from : artefact.layers) {
    CacheLayer layer{from.head_dim, from.num_kv_heads, {}, {}};
    const auto& rotation = rotations.at(from.head_dim);
    const auto sketch = from.key.mode == KeyMode::prod ? sketches.at(from.head_dim) : nullptr;
    for (const KeyTables& tables : from.key_tables)
      layer.keys.push_back(std::make_shared<const KeyCodec>(from.key, rotation, sketch, tables));
    if (from.value.mode == ValueMode::group) {
      layer.values.push_back(
          std::make_shared<const ValueCodec>(from.value, from.head_dim, nullptr, Codebook()));
    }
    for (const Codebook& table : from.value_tables)
      layer.values.push_back(std::make_shared<const ValueCodec>(from.value, from.head_dim, rotation, table));
    layers.push_back(std::move(layer));
  }
  return layers;
}

}  // namespace tq
