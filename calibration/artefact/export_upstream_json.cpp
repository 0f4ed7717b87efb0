#include <algorithm>
#include <cctype>
#include <filesystem>
#include <optional>

#include "calibration/artefact/atomic_folder.h"
#include "calibration/artefact/codec_json.h"
#include "calibration/artefact/digest.h"
#include "calibration/artefact/export_formats.h"
#include "calibration/artefact/export_layout.h"
#include "calibration/artefact/table_checks.h"
#include "datasets/atomic_file.h"

namespace tq {
namespace {

using nlohmann::ordered_json;
namespace fs = std::filesystem;

// Exactly the keys of the packages' own files: their loaders pass the object on as it is.
ordered_json codebook_json(const Codebook& codebook, int head_dim) {
  const double mse = sphere_mse(codebook, head_dim);
  return {{"centroids", codebook.centroids},
          {"boundaries", codebook.boundaries},
          {"mse_per_coord", mse / head_dim},
          {"mse_total", mse},
          {"d", head_dim},
          {"bits", codebook.bits}};
}

ordered_json key_json(const KeyConfig& key) {
  ordered_json json{{"mode", to_string(key.mode)}, {"bits", key.bits}};
  if (key.mode == KeyMode::prod) {
    json["sketch"] = to_string(key.sketch);
  } else {
    json["scale"] = to_string(key.scale);
  }
  return json;
}

ordered_json value_json(const ValueConfig& value) {
  ordered_json json{{"mode", to_string(value.mode)}, {"bits", value.bits}};
  if (value.mode == ValueMode::group) {
    json["group_size"] = value.group_size;
  } else {
    json["scale"] = to_string(value.scale);
  }
  return json;
}

ordered_json manifest_json(const Artefact& artefact) {
  ordered_json json{{"format", kUpstreamFormat},
                    {"format_version", 1},
                    {"codec", describe_codec(artefact)},
                    {"artefact_sha256", artefact_digest(artefact)},
                    {"model_name", artefact.provenance.model},
                    {"num_q_heads", artefact.num_q_heads},
                    {"key_basis", artefact.key_basis}};
  if (artefact.softmax_scale) json["softmax_scale"] = *artefact.softmax_scale;
  add_policy(json, artefact.policy);
  json["rotations"] = ordered_json::object();
  for (const auto& [head_dim, rotation] : artefact.rotations) {
    json["rotations"][std::to_string(head_dim)] =
        seeded_json(to_string(rotation.kind()), rotation.seed(), rotation_digest(rotation));
  }
  json["sketches"] = ordered_json::object();
  for (const auto& [head_dim, sketch] : artefact.sketches) {
    json["sketches"][std::to_string(head_dim)] =
        seeded_json(to_string(sketch.kind()), sketch.seed(), sketch_digest(sketch));
  }
  bool midpoints = true;
  json["layers"] = ordered_json::array();
  for (const LayerArtefact& layer : artefact.layers) {
    json["layers"].push_back({{"head_dim", layer.head_dim},
                              {"num_kv_heads", layer.num_kv_heads},
                              {"key", key_json(layer.key)},
                              {"key_tables", layer.key_tables.size()},
                              {"value", value_json(layer.value)},
                              {"value_tables", layer.value_tables.size()}});
    for (const KeyTables& tables : layer.key_tables) midpoints &= boundaries_are_midpoints(tables.codebook);
    for (const Codebook& codebook : layer.value_tables) midpoints &= boundaries_are_midpoints(codebook);
  }
  json["boundaries_are_midpoints"] = midpoints;
  json["calibration"] = calibration_json(artefact.provenance);
  return json;
}

// `folder` for the only table of a layer, else head_HH in it.
fs::path table_folder(const fs::path& folder, std::size_t head, std::size_t tables) {
  fs::path own = tables == 1 ? folder : folder / upstream_head_folder(head);
  fs::create_directories(own);
  return own;
}

void write_json(const fs::path& path, const ordered_json& json) {
  write_file_atomically(path.string(), json_text(json));
}

void write_layer(const LayerArtefact& layer, const fs::path& folder) {
  for (std::size_t h = 0; h < layer.key_tables.size(); ++h) {
    const KeyTables& tables = layer.key_tables[h];
    const fs::path own = table_folder(folder, h, layer.key_tables.size());
    write_json(own / upstream_codebook_file(layer.head_dim, tables.codebook.bits),
               codebook_json(tables.codebook, layer.head_dim));
    write_json(own / kUpstreamScaleFile, {{"qjl_scale", tables.qjl_scale}, {"convention", "alpha"}});
  }
  for (std::size_t h = 0; h < layer.value_tables.size(); ++h) {
    const Codebook& codebook = layer.value_tables[h];
    const fs::path own = table_folder(folder / kUpstreamValueFolder, h, layer.value_tables.size());
    write_json(own / upstream_codebook_file(layer.head_dim, codebook.bits),
               codebook_json(codebook, layer.head_dim));
  }
}

// `pattern` with '#' for one or more digits.
bool matches(std::string_view name, std::string_view pattern) {
  std::size_t at = 0;
  for (const char c : pattern) {
    if (c != '#') {
      if (at == name.size() || name[at++] != c) return false;
      continue;
    }
    const std::size_t begin = at;
    while (at < name.size() && std::isdigit(static_cast<unsigned char>(name[at]))) ++at;
    if (at == begin) return false;
  }
  return at == name.size();
}

bool is_export_name(const std::string& name) {
  for (const std::string_view pattern : {"layer_#", "head_#", "codebook_d#_b#.json"}) {
    if (matches(name, pattern)) return true;
  }
  return name == kUpstreamManifest || name == kUpstreamScaleFile || name == kUpstreamValueFolder;
}

// Replacing a folder removes what is in it, so it must be an earlier export with nothing of anyone else's
// inside.
void require_replaceable(const fs::path& target) {
  const auto status = fs::symlink_status(target);
  if (!fs::exists(status)) return;
  const auto refuse = [&](const std::string& why) {
    throw UsageError("{}: {}; choose another folder or remove this one", target.string(), why);
  };
  if (!fs::is_directory(status)) refuse("exists and is not a folder");
  if (fs::is_empty(target)) return;
  if (!fs::is_regular_file(target / kUpstreamManifest)) {
    refuse(fmt::format("exists and is not an export (it holds no {})", kUpstreamManifest));
  }
  for (const auto& entry : fs::recursive_directory_iterator(target)) {
    const std::string name = entry.path().filename().string();
    if (entry.is_symlink() || !(entry.is_directory() || entry.is_regular_file()) || !is_export_name(name)) {
      refuse(fmt::format("holds '{}', which no export wrote", name));
    }
  }
}

}  // namespace

void write_upstream_folder(const Artefact& artefact, const std::string& folder) try {
  require_replaceable(folder);
  AtomicFolder output(folder);
  const fs::path root = output.temporary();
  for (std::size_t i = 0; i < artefact.layers.size(); ++i) {
    write_layer(artefact.layers[i], root / upstream_layer_folder(i));
  }
  write_json(root / kUpstreamManifest, manifest_json(artefact));
  output.commit();
} catch (const fs::filesystem_error& error) {
  throw SystemError("{}: cannot write the folder: {}", folder, error.code().message());
}

}  // namespace tq
