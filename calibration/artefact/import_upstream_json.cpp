#include <algorithm>
#include <filesystem>

#include "calibration/artefact/codec_json.h"
#include "calibration/artefact/export_layout.h"
#include "calibration/artefact/import_formats.h"
#include "datasets/input_file.h"

namespace tq {
namespace {

namespace fs = std::filesystem;

struct UpstreamCodebook {
  int head_dim = 0;
  ImportedTable table;
};

UpstreamCodebook read_codebook(const JsonNode& root, std::vector<std::string>& unknown) {
  root.collect_unknown({"centroids", "boundaries", "mse_per_coord", "mse_total", "d", "bits"}, unknown);
  UpstreamCodebook out;
  out.head_dim = static_cast<int>(root.at("d").integer(4, kMostDims));
  out.table.codebook.bits = static_cast<int>(root.at("bits").integer(1, 8));
  out.table.codebook.centroids = root.at("centroids").numbers(kMostTableValues);
  out.table.codebook.boundaries = root.at("boundaries").numbers(kMostTableValues);
  out.table.stated_mse_per_coord = root.at("mse_per_coord").number();
  out.table.stated_mse_total = root.at("mse_total").number();
  return out;
}

double read_scale(const JsonNode& root, std::vector<std::string>& unknown) {
  root.collect_unknown({"qjl_scale", "convention"}, unknown);
  if (root.at("convention").text() != "alpha") {
    throw InputError("{}: 'alpha', the bare coefficient, is the one known convention",
                     root.at("convention").where());
  }
  return root.at("qjl_scale").number();
}

// A table that the manifest announces, in its place.
ImportedTable read_announced(const fs::path& folder, int head_dim, int bits, bool is_key,
                             std::vector<std::string>& unknown) {
  const std::string path = (folder / upstream_codebook_file(head_dim, bits)).string();
  const JsonDocument document = read_json(path);
  UpstreamCodebook codebook = read_codebook(document.root(), unknown);
  if (codebook.head_dim != head_dim || codebook.table.codebook.bits != bits) {
    throw InputError("{}: d and bits are {} and {}, not those of its name", path, codebook.head_dim,
                     codebook.table.codebook.bits);
  }
  if (is_key) {
    const JsonDocument scale = read_json((folder / kUpstreamScaleFile).string());
    codebook.table.qjl_scale = read_scale(scale.root(), unknown);
  }
  return codebook.table;
}

KeyConfig read_key(const JsonNode& node, std::vector<std::string>& unknown) {
  KeyConfig key;
  key.mode = read_choice<KeyMode>(node.at("mode"));
  key.bits = static_cast<int>(node.at("bits").integer(key.mode == KeyMode::prod ? 2 : 1, 8));
  if (key.mode == KeyMode::prod) {
    node.collect_unknown({"mode", "bits", "sketch"}, unknown);
    key.sketch = read_choice<SketchKind>(node.at("sketch"));
  } else {
    node.collect_unknown({"mode", "bits", "scale"}, unknown);
    key.scale = read_choice<ScaleRule>(node.at("scale"));
  }
  return key;
}

ValueConfig read_value(const JsonNode& node, std::vector<std::string>& unknown) {
  ValueConfig value;
  value.mode = read_choice<ValueMode>(node.at("mode"));
  value.bits = static_cast<int>(node.at("bits").integer(1, 8));
  if (value.mode == ValueMode::group) {
    node.collect_unknown({"mode", "bits", "group_size"}, unknown);
    value.group_size = static_cast<int>(node.at("group_size").integer(1, kMostDims));
  } else {
    node.collect_unknown({"mode", "bits", "scale"}, unknown);
    value.scale = read_choice<ScaleRule>(node.at("scale"));
  }
  return value;
}

ImportedLayer read_layer(const JsonNode& node, const fs::path& folder, std::vector<std::string>& unknown) {
  node.collect_unknown({"head_dim", "num_kv_heads", "key", "key_tables", "value", "value_tables"}, unknown);
  ImportedLayer layer;
  layer.name = folder.filename().string();
  layer.head_dim = static_cast<int>(node.at("head_dim").integer(4, kMostDims));
  layer.num_kv_heads = static_cast<int>(node.at("num_kv_heads").integer(1, kMaxHeads));
  layer.key = read_key(node.at("key"), unknown);
  layer.value = read_value(node.at("value"), unknown);
  const auto read_side = [&](const fs::path& side, std::int64_t count, int bits, bool is_key) {
    std::vector<ImportedTable> tables;
    for (std::int64_t h = 0; h < count; ++h) {
      const fs::path own = count == 1 ? side : side / upstream_head_folder(static_cast<std::size_t>(h));
      tables.push_back(read_announced(own, layer.head_dim, bits, is_key, unknown));
    }
    return tables;
  };
  layer.key_tables =
      read_side(folder, node.at("key_tables").integer(1, kMaxHeads), layer.key->table_bits(), true);
  layer.value_tables = read_side(folder / kUpstreamValueFolder, node.at("value_tables").integer(0, kMaxHeads),
                                 layer.value->bits, false);
  return layer;
}

std::map<int, SeededObject> read_seeded_map(const JsonNode& node, std::vector<std::string>& unknown) {
  std::map<int, SeededObject> objects;
  for (const auto& [name, member] : node.members(kMaxLayers)) {
    const int dims = parse_integer<int>(name).value_or(0);
    if (std::to_string(dims) != name || dims < 4 || dims > kMostDims) {
      throw InputError("{}: the name is not a head dimension", member.where());
    }
    objects.emplace(dims, read_seeded(member, unknown));
  }
  return objects;
}

ImportedTables read_export(const fs::path& folder) {
  const JsonDocument document = read_json((folder / kUpstreamManifest).string());
  const JsonNode root = document.root();
  ImportedTables tables;
  tables.format = SourceFormat::upstream_json;
  root.collect_unknown({"format", "format_version", "codec", "artefact_sha256", "model_name", "num_q_heads",
                        "key_basis", "softmax_scale", "recent_window", "first_tokens", "rotations",
                        "sketches", "layers", "boundaries_are_midpoints", "calibration"},
                       tables.unknown);
  if (root.at("format").text() != kUpstreamFormat) {
    throw InputError("{}: '{}' is wanted", root.at("format").where(), kUpstreamFormat);
  }
  root.at("format_version").integer(1, 1);
  tables.provenance = read_calibration(root.at("calibration"), tables.unknown);
  tables.provenance.model = root.at("model_name").text();
  tables.digest = root.at("artefact_sha256").text();
  tables.num_q_heads = static_cast<int>(root.at("num_q_heads").integer(1, kMaxHeads));
  tables.key_basis = root.at("key_basis").text();
  if (const auto scale = root.find("softmax_scale")) tables.softmax_scale = scale->number();
  tables.policy = read_policy(root);
  tables.seeded_rotations = read_seeded_map(root.at("rotations"), tables.unknown);
  tables.seeded_sketches = read_seeded_map(root.at("sketches"), tables.unknown);
  for (const JsonNode& node : root.at("layers").items(kMaxLayers)) {
    tables.layers.push_back(
        read_layer(node, folder / upstream_layer_folder(tables.layers.size()), tables.unknown));
  }
  return tables;
}

}  // namespace

ImportedTables read_upstream_file(const JsonNode& root, const std::string& path) {
  ImportedTables tables;
  tables.format = SourceFormat::upstream_json;
  UpstreamCodebook codebook = read_codebook(root, tables.unknown);
  ImportedLayer layer;
  layer.name = fs::path(path).filename().string();
  layer.head_dim = codebook.head_dim;
  layer.key_tables.push_back(std::move(codebook.table));
  tables.layers.push_back(std::move(layer));
  return tables;
}

ImportedTables read_upstream_folder(const std::string& folder) {
  if (fs::is_regular_file(fs::path(folder) / kUpstreamManifest)) return read_export(folder);

  // The packages' own `codebooks` folder: one file for each d and b.
  std::vector<std::string> files;
  for (const auto& entry : fs::directory_iterator(folder)) {
    const std::string name = entry.path().filename().string();
    if (name.starts_with("codebook_") && name.ends_with(".json")) files.push_back(entry.path().string());
  }
  if (files.empty()) {
    throw InputError("{}: neither {} nor a codebook_d*_b*.json is in this folder", folder, kUpstreamManifest);
  }
  if (files.size() > kMaxLayers)
    throw InputError("{}: {} codebook files; {} are the most", folder, files.size(), kMaxLayers);
  std::sort(files.begin(), files.end());
  ImportedTables tables;
  tables.format = SourceFormat::upstream_json;
  for (const std::string& file : files) {
    const JsonDocument document = read_json(file);
    ImportedTables one = read_upstream_file(document.root(), file);
    tables.layers.push_back(std::move(one.layers.front()));
    for (const std::string& place : one.unknown) {
      tables.unknown.push_back(tables.layers.back().name + ": " + place);
    }
  }
  return tables;
}

}  // namespace tq
