#include <algorithm>
#include <bit>
#include <charconv>
#include <cmath>
#include <cstring>
#include <map>
#include <span>

#include "calibration/artefact/codec_json.h"
#include "calibration/artefact/export_layout.h"
#include "calibration/artefact/import_formats.h"
#include "calibration/artefact/table_checks.h"
#include "datasets/input_file.h"
#include "datasets/safetensors.h"

namespace tq {
namespace {

// What a file holds. Every tensor and metadata entry is taken at most once; what nobody took is left for
// unknown().
class TableFile {
 public:
  TableFile(std::string_view bytes, const std::string& path)
      : path_(path), content_(parse_safetensors(bytes, path)) {}

  bool has_metadata(const std::string& key) const { return content_.metadata.contains(key); }
  std::optional<std::string> find_metadata(const std::string& key) {
    const auto node = content_.metadata.extract(key);
    return node ? std::optional(node.mapped()) : std::nullopt;
  }
  std::string metadata(const std::string& key) {
    auto value = find_metadata(key);
    if (!value) throw InputError("{}: __metadata__: '{}' is missing", path_, key);
    return *value;
  }
  template <typename Integer>
  Integer integer(const std::string& key, Integer lowest, Integer highest) {
    const auto value = parse_integer<Integer>(metadata(key));
    if (!value || *value < lowest || *value > highest) {
      throw InputError("{}: __metadata__: {}: an integer from {} to {} is wanted", path_, key, lowest,
                       highest);
    }
    return *value;
  }
  template <typename Enum>
  Enum choice(const std::string& key) {
    const nlohmann::json value = metadata(key);
    return read_choice<Enum>(JsonNode(&value, path_, "__metadata__: " + key));
  }

  bool has_tensor(const std::string& name) const { return content_.tensors.contains(name); }
  std::vector<float> floats(const std::string& name, std::vector<std::size_t>& shape) {
    std::vector<float> values;
    for (const std::uint32_t word : words(name, "F32", shape)) {
      values.push_back(std::bit_cast<float>(word));
      if (!std::isfinite(values.back()))
        throw InputError("{}: {}: element {} is not finite", path_, name, values.size() - 1);
    }
    return values;
  }
  std::vector<std::int32_t> integers(const std::string& name, std::vector<std::size_t>& shape) {
    std::vector<std::int32_t> values;
    for (const std::uint32_t word : words(name, "I32", shape))
      values.push_back(std::bit_cast<std::int32_t>(word));
    return values;
  }

  const std::string& path() const { return path_; }
  std::vector<std::string> unknown() const {
    std::vector<std::string> places;
    for (const auto& [name, tensor] : content_.tensors) places.push_back(printable(name));
    for (const auto& [key, value] : content_.metadata) places.push_back("__metadata__." + printable(key));
    return places;
  }

 private:
  std::vector<std::uint32_t> words(const std::string& name, std::string_view dtype,
                                   std::vector<std::size_t>& shape) {
    const auto node = content_.tensors.extract(name);
    if (!node) throw InputError("{}: tensor '{}' is missing", path_, name);
    const SafetensorsTensor& tensor = node.mapped();
    if (tensor.dtype != dtype) throw InputError("{}: dtype {} is wanted", tensor.where, dtype);
    shape = tensor.shape;
    std::vector<std::uint32_t> values(tensor.bytes.size() / 4);
    if (!values.empty()) std::memcpy(values.data(), tensor.bytes.data(), tensor.bytes.size());
    return values;
  }

  std::string path_;
  SafetensorsContent content_;
};

// Splits [2^b] or [tables, 2^b] (and the boundaries alike) into tables.
std::vector<ImportedTable> read_tables(TableFile& file, const std::string& name, int bits) {
  std::vector<std::size_t> shape, boundary_shape;
  const std::vector<float> centroids = file.floats(name + ".centroids", shape);
  const std::vector<float> boundaries = file.floats(name + ".boundaries", boundary_shape);
  file.metadata(name + ".boundaries_are_midpoints");
  const std::size_t size = std::size_t{1} << bits;
  const std::size_t tables = shape.size() == 2 ? shape[0] : 1;
  const bool fits = (shape.size() == 1 || shape.size() == 2) && shape.back() == size && tables >= 1 &&
                    boundary_shape.size() == shape.size() && boundary_shape.back() == size + 1 &&
                    boundary_shape.front() == (shape.size() == 2 ? tables : size + 1);
  if (!fits) {
    throw InputError("{}: {}: shapes ({}) and ({}) are not those of {}-bit tables", file.path(), name,
                     fmt::join(shape, ", "), fmt::join(boundary_shape, ", "), bits);
  }
  const auto row = [](const std::vector<float>& all, std::size_t index, std::size_t width) {
    const auto begin = all.begin() + static_cast<std::ptrdiff_t>(index * width);
    return to_float64({begin, begin + static_cast<std::ptrdiff_t>(width)});
  };
  std::vector<ImportedTable> out;
  for (std::size_t i = 0; i < tables; ++i) {
    out.push_back({.codebook = {bits, row(centroids, i, size), row(boundaries, i, size + 1)}});
  }
  return out;
}

ImportedLayer read_layer(TableFile& file, const std::string& name) {
  ImportedLayer layer;
  layer.name = name;
  layer.head_dim = file.integer(name + ".head_dim", 4, kMostDims);
  layer.num_kv_heads = file.integer(name + ".num_kv_heads", 1, kMaxHeads);

  KeyConfig key;
  key.mode = file.choice<KeyMode>(name + ".k.mode");
  key.bits = file.integer(name + ".k.bits", key.mode == KeyMode::prod ? 2 : 1, 8);
  if (key.mode == KeyMode::prod) key.sketch = file.choice<SketchKind>(name + ".k.sketch");
  if (key.mode == KeyMode::mse) key.scale = file.choice<ScaleRule>(name + ".k.scale");
  layer.key = key;
  layer.key_tables = read_tables(file, name + ".k", key.table_bits());
  std::vector<std::size_t> shape;
  const std::vector<float> scales = file.floats(name + ".k.qjl_scale", shape);
  if (shape.size() != 1 || scales.size() != layer.key_tables.size()) {
    throw InputError("{}: {}.k.qjl_scale: shape ({}) for {} tables", file.path(), name,
                     fmt::join(shape, ", "), layer.key_tables.size());
  }
  for (std::size_t i = 0; i < scales.size(); ++i) layer.key_tables[i].qjl_scale = double{scales[i]};

  ValueConfig value;
  value.mode = file.choice<ValueMode>(name + ".v.mode");
  value.bits = file.integer(name + ".v.bits", 1, 8);
  if (value.mode == ValueMode::group) {
    value.group_size = file.integer(name + ".v.group_size", 1, kMostDims);
  } else {
    value.scale = file.choice<ScaleRule>(name + ".v.scale");
    layer.value_tables = read_tables(file, name + ".v", value.bits);
  }
  layer.value = value;
  return layer;
}

// A Rotation or Sketch from its tensors.
template <typename Object>
Object read_object(TableFile& file, const std::string& name, int head_dim) {
  const std::string kind = file.metadata(name + ".kind");
  const auto seed = file.integer<std::uint64_t>(name + ".seed", 0, UINT64_MAX);
  const auto d = static_cast<std::size_t>(head_dim);
  const auto require_shape = [&](const std::vector<std::size_t>& shape,
                                 const std::vector<std::size_t>& wanted) {
    if (shape != wanted) {
      throw InputError("{}: {}: shape ({}); ({}) is wanted", file.path(), name, fmt::join(shape, ", "),
                       fmt::join(wanted, ", "));
    }
  };
  const auto build = [&] {
    std::vector<std::size_t> shape;
    if (file.has_tensor(name + ".matrix")) {
      std::vector<float> matrix = file.floats(name + ".matrix", shape);
      require_shape(shape, {d, d});
      return Object::from_matrix(std::move(matrix), seed);
    }
    std::vector<float> signs = file.floats(name + ".signs", shape);
    require_shape(shape, {d});
    std::vector<std::uint16_t> permutation;
    for (const std::int32_t index : file.integers(name + ".permutation", shape)) {
      if (index < 0 || index >= head_dim) throw InputError("permutation: {} is out of range", index);
      permutation.push_back(static_cast<std::uint16_t>(index));
    }
    require_shape(shape, {d});
    return Object::from_signs(std::move(signs), std::move(permutation), seed);
  };
  Object object = build();
  if (to_string(object.kind()) != kind) {
    throw InputError("{}: {}: the tensors are not those of kind '{}'", file.path(), name, printable(kind));
  }
  return object;
}

}  // namespace

ImportedTables read_safetensors(std::string_view bytes, const std::string& path) {
  TableFile file(bytes, path);
  if (file.find_metadata("format") != kSafetensorsFormat) {
    throw InputError("{}: __metadata__: format is not '{}': these are not quantisation tables", path,
                     kSafetensorsFormat);
  }
  file.integer("format_version", 1, 1);
  for (const auto& [key, wanted] : std::map<std::string, std::string>{
           {"sigma_convention", "1/sqrt(d)"}, {"qjl_scale_convention", "alpha"}, {"sign_of_zero", "-1"}}) {
    if (file.metadata(key) != wanted)
      throw InputError("{}: __metadata__: {}: '{}' is wanted", path, key, wanted);
  }
  ImportedTables tables;
  tables.format = SourceFormat::safetensors;
  file.metadata("codec");
  tables.digest = file.metadata("artefact_sha256");
  tables.num_q_heads = file.integer("num_q_heads", 1, kMaxHeads);
  tables.key_basis = file.metadata("key_basis");
  if (const auto text = file.find_metadata("softmax_scale")) {
    double scale = 0;
    const auto [end, error] = std::from_chars(text->data(), text->data() + text->size(), scale);
    if (error != std::errc() || end != text->data() + text->size()) {
      throw InputError("{}: __metadata__: softmax_scale: a number is wanted", path);
    }
    tables.softmax_scale = scale;
  }
  if (file.has_metadata("recent_window") || file.has_metadata("first_tokens")) {
    tables.policy = CachePolicy{.recent = file.integer("recent_window", 0, kMaxPolicyTokens),
                                .sinks = file.integer("first_tokens", 0, kMaxPolicyTokens)};
  }
  const JsonDocument calibration(file.metadata("calibration"), path + ": __metadata__: calibration");
  tables.provenance = read_calibration(calibration.root(), tables.unknown);
  tables.provenance.model = file.metadata("model");

  const auto layers = file.integer<std::size_t>("num_layers", 1, kMaxLayers);
  for (std::size_t i = 0; i < layers; ++i)
    tables.layers.push_back(read_layer(file, fmt::format("layers.{}", i)));
  for (const ImportedLayer& layer : tables.layers) {
    const int d = layer.head_dim;
    if (!tables.rotations.contains(d)) {
      tables.rotations.emplace(d, read_object<Rotation>(file, fmt::format("rotation.{}", d), d));
    }
    if (layer.key->mode == KeyMode::prod && !tables.sketches.contains(d)) {
      tables.sketches.emplace(d, read_object<Sketch>(file, fmt::format("sketch.{}", d), d));
    }
  }
  for (const std::string& place : file.unknown()) tables.unknown.push_back(place);
  return tables;
}

}  // namespace tq
