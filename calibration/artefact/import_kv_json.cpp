#include <algorithm>

#include "calibration/artefact/codec_json.h"
#include "calibration/artefact/import_formats.h"
#include "datasets/input_file.h"

namespace tq {
namespace {

Codebook read_codebook(const JsonNode& node) {
  Codebook codebook;
  codebook.bits = static_cast<int>(node.at("bits").integer(1, 8));
  codebook.centroids = node.at("centroids").numbers(kMostTableValues);
  codebook.boundaries = node.at("boundaries").numbers(kMostTableValues);
  return codebook;
}

// The object `name`, or the list `name`s of one a KV head; empty when there is neither.
std::vector<JsonNode> tables_named(const JsonNode& layer, const std::string& name) {
  const auto one = layer.find(name);
  const auto many = layer.find(name + "s");
  if (one && many) throw InputError("{}: both {} and {}s; one of them is wanted", layer.where(), name, name);
  if (one) return {*one};
  return many ? many->items(kMaxHeads) : std::vector<JsonNode>{};
}

// What the key tables of one layer say of their sketch, which must agree.
struct LayerReader {
  ImportedTables& tables;

  void key_table(const JsonNode& node, ImportedLayer& layer, std::optional<SketchKind>& sketch) {
    node.collect_unknown({"bits", "centroids", "boundaries", "boundaries_are_midpoints", "qjl_scale",
                          "qjl_scale_convention", "qjl_matrix", "qjl_seed", "qjl_sha256", "sign_of_zero"},
                         tables.unknown);
    ImportedTable table;
    table.codebook = read_codebook(node);
    table.qjl_scale = node.at("qjl_scale").number();
    if (node.at("qjl_scale_convention").text() != "alpha") {
      throw InputError("{}: 'alpha', the bare coefficient, is the one known convention",
                       node.at("qjl_scale_convention").where());
    }
    if (const auto sign = node.find("sign_of_zero")) sign->integer(-1, -1);
    if (const auto matrix = node.find("qjl_matrix")) {
      sketch = read_choice<SketchKind>(*matrix);
      const SeededObject seeded{matrix->text(), node.at("qjl_seed").unsigned_integer(),
                                node.at("qjl_sha256").text()};
      const auto [known, added] = tables.seeded_sketches.emplace(layer.head_dim, seeded);
      if (!added && known->second != seeded) {
        throw InputError("{}: another sketch than that of an earlier table of head_size {}", matrix->where(),
                         layer.head_dim);
      }
    }
    layer.key_tables.push_back(std::move(table));
  }

  ImportedLayer layer(const std::string& name, const JsonNode& node, std::optional<int> head_size) {
    node.collect_unknown(
        {"head_size", "rotation", "num_kv_heads", "key_mode", "key_bits", "key_scale", "key_codebook",
         "key_codebooks", "value_scale", "value_codebook", "value_codebooks", "value_group"},
        tables.unknown);
    ImportedLayer layer;
    layer.name = name;
    if (const auto own = node.find("head_size")) head_size = static_cast<int>(own->integer(4, kMostDims));
    if (!head_size) throw InputError("{}: 'head_size' is missing here and at the top", node.where());
    layer.head_dim = *head_size;
    if (const auto rotation = node.find("rotation")) {
      const SeededObject seeded = read_seeded(*rotation, tables.unknown);
      const auto [known, added] = tables.seeded_rotations.emplace(layer.head_dim, seeded);
      if (!added && known->second != seeded) {
        throw InputError("{}: another rotation than that of an earlier layer of head_size {}",
                         rotation->where(), layer.head_dim);
      }
    }
    if (const auto heads = node.find("num_kv_heads"))
      layer.num_kv_heads = static_cast<int>(heads->integer(1, kMaxHeads));

    const std::vector<JsonNode> key_nodes = tables_named(node, "key_codebook");
    if (key_nodes.empty()) throw InputError("{}: 'key_codebook' is missing", node.where());
    std::optional<SketchKind> sketch;
    for (const JsonNode& table : key_nodes) key_table(table, layer, sketch);
    if (const auto mode = node.find("key_mode")) {
      KeyConfig key;
      key.mode = read_choice<KeyMode>(*mode);
      key.bits = static_cast<int>(node.at("key_bits").integer(key.mode == KeyMode::prod ? 2 : 1, 8));
      if (key.mode == KeyMode::mse) key.scale = read_choice<ScaleRule>(node.at("key_scale"));
      if (key.mode == KeyMode::prod) {
        if (!sketch) throw InputError("{}: prod keys without 'qjl_matrix'", node.where());
        key.sketch = *sketch;
      }
      layer.key = key;
    }

    for (const JsonNode& table : tables_named(node, "value_codebook")) {
      table.collect_unknown({"bits", "centroids", "boundaries", "boundaries_are_midpoints"}, tables.unknown);
      layer.value_tables.push_back({.codebook = read_codebook(table)});
    }
    if (const auto group = node.find("value_group")) {
      if (!layer.value_tables.empty()) throw InputError("{}: beside value_codebook", group->where());
      group->collect_unknown({"bits", "group_size"}, tables.unknown);
      layer.value =
          ValueConfig{.mode = ValueMode::group,
                      .bits = static_cast<int>(group->at("bits").integer(1, 8)),
                      .group_size = static_cast<int>(group->at("group_size").integer(1, kMostDims))};
    } else if (const auto scale = node.find("value_scale"); scale && !layer.value_tables.empty()) {
      layer.value = ValueConfig{.mode = ValueMode::rotated,
                                .bits = layer.value_tables.front().codebook.bits,
                                .scale = read_choice<ScaleRule>(*scale)};
    }
    return layer;
  }
};

// The first component of "model.layers.12.self_attn.attn" that is a number.
std::size_t layer_index(const std::string& name, const JsonNode& node) {
  for (std::size_t begin = 0; begin <= name.size();) {
    const std::size_t end = std::min(name.find('.', begin), name.size());
    const auto index = parse_integer<std::size_t>(std::string_view(name).substr(begin, end - begin));
    if (index && *index < kMaxLayers) return *index;
    begin = end + 1;
  }
  throw InputError("{}: the name holds no layer's number", node.where());
}

}  // namespace

ImportedTables read_kv_json(const JsonNode& root) {
  ImportedTables tables;
  tables.format = SourceFormat::kv_json;
  root.collect_unknown(
      {"version", "recipe", "head_size", "num_q_heads", "model_name", "transform_version", "codebook_version",
       "artefact_sha256", "sigma_convention", "key_basis", "softmax_scale", "recent_window", "first_tokens",
       "rotation", "layers", "calibration"},
      tables.unknown);
  root.at("version").integer(1, 1);
  if (const auto sigma = root.find("sigma_convention"); sigma && sigma->text() != "1/sqrt(d)") {
    throw InputError("{}: '1/sqrt(d)', tables for coordinates of unit vectors, is the one known convention",
                     sigma->where());
  }
  if (const auto calibration = root.find("calibration"); calibration && !calibration->is_null()) {
    tables.provenance = read_calibration(*calibration, tables.unknown);
  }
  if (const auto model = root.find("model_name"); model && !model->is_null())
    tables.provenance.model = model->text();
  if (const auto digest = root.find("artefact_sha256")) tables.digest = digest->text();
  if (const auto heads = root.find("num_q_heads"))
    tables.num_q_heads = static_cast<int>(heads->integer(1, kMaxHeads));
  if (const auto basis = root.find("key_basis")) tables.key_basis = basis->text();
  if (const auto scale = root.find("softmax_scale")) tables.softmax_scale = scale->number();
  tables.policy = read_policy(root);
  std::optional<int> head_size;
  if (const auto size = root.find("head_size")) head_size = static_cast<int>(size->integer(4, kMostDims));
  if (const auto rotation = root.find("rotation")) {
    if (!head_size) throw InputError("{}: without a head_size beside it", rotation->where());
    tables.seeded_rotations.emplace(*head_size, read_seeded(*rotation, tables.unknown));
  }

  // JSON objects have no order, so the names give it.
  LayerReader reader{tables};
  std::map<std::size_t, ImportedLayer> layers;
  for (const auto& [name, node] : root.at("layers").members(kMaxLayers)) {
    const std::size_t index = layer_index(name, node);
    if (!layers.emplace(index, reader.layer(printable(name), node, head_size)).second) {
      throw InputError("{}: layer {} stands twice", node.where(), index);
    }
  }
  for (auto& [index, layer] : layers) {
    if (index != tables.layers.size()) {
      throw InputError("{}: layer {} is missing", root.at("layers").where(), tables.layers.size());
    }
    tables.layers.push_back(std::move(layer));
  }
  return tables;
}

}  // namespace tq
