#include "calibration/artefact/import.h"

#include <algorithm>
#include <array>
#include <filesystem>

#include "calibration/artefact/digest.h"
#include "calibration/artefact/export_layout.h"
#include "calibration/artefact/import_formats.h"
#include "calibration/artefact/table_checks.h"
#include "core/error.h"
#include "datasets/input_file.h"

namespace tq {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kHdf5Signature = "\x89HDF\r\n\x1a\n";
constexpr std::size_t kMaxFileBytes = std::size_t{256} << 20;

bool is_hdf5(const std::string& path) {
  return read_input_head(path, kHdf5Signature.size()) == kHdf5Signature;
}

// A safetensors file: eight bytes of length, which are not text in any file of less than an exabyte, then an
// object.
bool looks_like_safetensors(std::string_view head) {
  return head.size() > 8 && head[8] == '{' && std::any_of(head.begin(), head.begin() + 8, [](char c) {
           const auto byte = static_cast<unsigned char>(c);
           return byte >= 0x7f || (byte < 0x20 && c != '\n' && c != '\r' && c != '\t');
         });
}

ImportedTables read_any_json(const std::string& text, const std::string& path) {
  const JsonDocument document(text, path);
  const JsonNode root = document.root();
  if (root.find("layers") && root.find("version")) return read_kv_json(root);
  if (root.find("centroids")) return read_upstream_file(root, path);
  throw InputError(
      "{}: JSON, but neither a codebook (centroids, boundaries, ...) nor turboquant_kv.json (version, "
      "layers, ...)",
      path);
}

ImportedTables read_by_content(const std::string& path, Trust trust) {
  std::error_code error;
  if (fs::is_directory(path, error)) return read_upstream_folder(path);
  if (is_hdf5(path)) return tables_of(read_artefact(path, trust));

  const std::string text = read_input_file(path, kMaxFileBytes);
  if (looks_like_safetensors(text)) return read_safetensors(text, path);
  if (text.starts_with(kCHeaderFirstLine)) return read_c_header(text, path);
  const std::size_t first = text.find_first_not_of(" \t\r\n");
  if (first != text.npos && text[first] == '{') return read_any_json(text, path);
  throw InputError(
      "{}: none of the known formats: a *.tq.h5 artefact, a codebook_d*_b*.json or a folder of them, "
      "turboquant_kv.json, safetensors, a C header of ours",
      path);
}

void validate_tables(const ImportedTables& tables, const std::string& path) {
  if (tables.layers.empty()) throw InputError("{}: no layer", path);
  for (const ImportedLayer& layer : tables.layers) {
    const std::string where = path + ": " + layer.name;
    const auto validate_side = [&](const std::vector<ImportedTable>& side, std::string_view name) {
      for (const ImportedTable& table : side) {
        const std::string place = fmt::format("{}: {}", where, name);
        validate_unit_table(table.codebook, side.front().codebook.bits, place);
        if (table.qjl_scale) validate(KeyTables{table.codebook, *table.qjl_scale}, place);
      }
      if (layer.num_kv_heads && side.size() > 1 &&
          side.size() != static_cast<std::size_t>(*layer.num_kv_heads)) {
        throw InputError("{}: {} {} tables for {} KV heads", where, side.size(), name, *layer.num_kv_heads);
      }
    };
    validate_side(layer.key_tables, "key");
    validate_side(layer.value_tables, "value");
  }
}

// Draws again what a file names by its seed, and makes sure that it is what the exporter had.
template <typename Object, typename Kind>
Object draw_again(const SeededObject& seeded, int head_dim, std::string_view what,
                  std::string (*digest)(const Object&), const std::string& path) {
  const std::string where = fmt::format("{}: the {} of head_dim {}", path, what, head_dim);
  try {
    Object object = Object::make(parse_choice<Kind>("kind", printable(seeded.kind)), head_dim, seeded.seed);
    if (digest(object) == seeded.sha256) return object;
  } catch (const UsageError& error) {
    throw InputError("{}: {}", where, error.what());
  }
  throw InputError(
      "{}: drawn from seed {} it has another digest than the file states; use the safetensors export, "
      "which carries the object itself",
      where, seeded.seed);
}

template <typename Object, typename Kind>
std::map<int, Object> resolve(std::map<int, Object> carried, const std::map<int, SeededObject>& seeded,
                              std::string_view what, std::string (*digest)(const Object&),
                              const std::string& path) {
  for (const auto& [head_dim, object] : seeded) {
    carried.emplace(head_dim, draw_again<Object, Kind>(object, head_dim, what, digest, path));
  }
  return carried;
}

std::vector<std::string> missing_items(const ImportedTables& tables) {
  std::vector<std::string> missing;
  const auto need = [&](bool present, std::string name) {
    if (!present && std::find(missing.begin(), missing.end(), name) == missing.end())
      missing.push_back(std::move(name));
  };
  need(tables.num_q_heads.has_value(), "the number of query heads");
  need(tables.key_basis.has_value(), "the key basis");
  for (const ImportedLayer& layer : tables.layers) {
    need(layer.num_kv_heads.has_value(), "the number of KV heads");
    need(layer.key.has_value(), "the key configuration");
    need(layer.value.has_value(), "the value configuration");
    for (const ImportedTable& table : layer.key_tables) need(table.qjl_scale.has_value(), "qjl_scale");
    need(tables.rotations.contains(layer.head_dim) || tables.seeded_rotations.contains(layer.head_dim),
         fmt::format("the rotation of head_dim {}", layer.head_dim));
  }
  return missing;
}

}  // namespace

std::string_view to_string(SourceFormat format) {
  constexpr std::array<std::string_view, 5> kNames{"artefact", "upstream-json", "kv-json", "safetensors",
                                                   "c-header"};
  return kNames.at(static_cast<std::size_t>(format));
}

ImportedTables import_tables(const std::string& path, Trust trust) try {
  ImportedTables tables = read_by_content(path, trust);
  validate_tables(tables, path);
  return tables;
} catch (const fs::filesystem_error& error) {
  throw InputError("{}: cannot be read: {}", path, error.code().message());
}

Artefact import_artefact(const std::string& path, Trust trust) {
  std::error_code error;
  if (!fs::is_directory(path, error) && is_hdf5(path)) return read_artefact(path, trust);

  ImportedTables tables = import_tables(path);
  const std::vector<std::string> missing = missing_items(tables);
  if (!missing.empty()) {
    throw InputError(
        "{}: cannot become an artefact, it lacks {}; a whole export of any format "
        "carries everything",
        path, fmt::join(missing, ", "));
  }
  if (!tables.unknown.empty()) {
    throw InputError("{}: {} is not an item of this format and would be lost ({} in all)", path,
                     tables.unknown.front(), tables.unknown.size());
  }

  Artefact artefact;
  artefact.num_q_heads = *tables.num_q_heads;
  artefact.key_basis = *tables.key_basis;
  artefact.softmax_scale = tables.softmax_scale;
  artefact.policy = tables.policy;
  artefact.provenance = tables.provenance;
  artefact.rotations = resolve<Rotation, RotationKind>(std::move(tables.rotations), tables.seeded_rotations,
                                                       "rotation", rotation_digest, path);
  artefact.sketches = resolve<Sketch, SketchKind>(std::move(tables.sketches), tables.seeded_sketches,
                                                  "sketch", sketch_digest, path);
  for (ImportedLayer& source : tables.layers) {
    LayerArtefact layer;
    layer.head_dim = source.head_dim;
    layer.num_kv_heads = *source.num_kv_heads;
    layer.key = *source.key;
    layer.value = *source.value;
    for (ImportedTable& table : source.key_tables) {
      layer.key_tables.push_back({std::move(table.codebook), *table.qjl_scale});
    }
    for (ImportedTable& table : source.value_tables) layer.value_tables.push_back(std::move(table.codebook));
    artefact.layers.push_back(std::move(layer));
  }
  validate(artefact, path);
  if (tables.digest && artefact_digest(artefact) != *tables.digest) {
    throw InputError(
        "{}: the content does not have the digest that the export states; it was edited or damaged", path);
  }
  return artefact;
}

ImportedTables tables_of(const Artefact& artefact) {
  ImportedTables tables;
  tables.num_q_heads = artefact.num_q_heads;
  tables.key_basis = artefact.key_basis;
  tables.softmax_scale = artefact.softmax_scale;
  tables.policy = artefact.policy;
  tables.digest = artefact_digest(artefact);
  tables.provenance = artefact.provenance;
  tables.rotations = artefact.rotations;
  tables.sketches = artefact.sketches;
  for (const LayerArtefact& source : artefact.layers) {
    ImportedLayer layer;
    layer.name = fmt::format("/layers/{:03}", tables.layers.size());
    layer.head_dim = source.head_dim;
    layer.num_kv_heads = source.num_kv_heads;
    layer.key = source.key;
    layer.value = source.value;
    for (const KeyTables& entry : source.key_tables) {
      layer.key_tables.push_back({.codebook = entry.codebook, .qjl_scale = entry.qjl_scale});
    }
    for (const Codebook& codebook : source.value_tables) layer.value_tables.push_back({.codebook = codebook});
    tables.layers.push_back(std::move(layer));
  }
  return tables;
}

}  // namespace tq
