#include "calibration/artefact/codec_json.h"
#include "calibration/artefact/digest.h"
#include "calibration/artefact/export_formats.h"
#include "calibration/artefact/table_checks.h"

namespace tq {
namespace {

using nlohmann::ordered_json;

ordered_json rotation_json(const Rotation& rotation) {
  return seeded_json(to_string(rotation.kind()), rotation.seed(), rotation_digest(rotation));
}

ordered_json codebook_json(const Codebook& codebook) {
  return {{"bits", codebook.bits},
          {"centroids", codebook.centroids},
          {"boundaries", codebook.boundaries},
          {"boundaries_are_midpoints", boundaries_are_midpoints(codebook)}};
}

// `name` for the only table of a layer, `name` with an s and a list where every KV head has one.
void add_tables(ordered_json& layer, const std::string& name, const std::vector<ordered_json>& tables) {
  if (tables.size() == 1) layer[name] = tables.front();
  if (tables.size() > 1) layer[name + "s"] = tables;
}

ordered_json layer_json(const LayerArtefact& layer, const Artefact& artefact, bool uniform) {
  ordered_json json = ordered_json::object();
  if (!uniform) {
    json["head_size"] = layer.head_dim;
    json["rotation"] = rotation_json(artefact.rotations.at(layer.head_dim));
  }
  json["num_kv_heads"] = layer.num_kv_heads;
  json["key_mode"] = to_string(layer.key.mode);
  json["key_bits"] = layer.key.bits;
  if (layer.key.mode == KeyMode::mse) json["key_scale"] = to_string(layer.key.scale);

  std::vector<ordered_json> tables;
  for (const KeyTables& entry : layer.key_tables) {
    ordered_json table = codebook_json(entry.codebook);
    table["qjl_scale"] = entry.qjl_scale;
    table["qjl_scale_convention"] = "alpha";
    if (layer.key.mode == KeyMode::prod) {
      const Sketch& sketch = artefact.sketches.at(layer.head_dim);
      table["qjl_matrix"] = to_string(sketch.kind());
      table["qjl_seed"] = sketch.seed();
      table["qjl_sha256"] = sketch_digest(sketch);
    }
    table["sign_of_zero"] = -1;
    tables.push_back(std::move(table));
  }
  add_tables(json, "key_codebook", tables);

  if (layer.value.mode == ValueMode::group) {
    json["value_group"] = {{"bits", layer.value.bits}, {"group_size", layer.value.group_size}};
    return json;
  }
  json["value_scale"] = to_string(layer.value.scale);
  tables.clear();
  for (const Codebook& codebook : layer.value_tables) tables.push_back(codebook_json(codebook));
  add_tables(json, "value_codebook", tables);
  return json;
}

}  // namespace

std::string kv_json_text(const Artefact& artefact) {
  // Where head dimensions differ, head_size and rotation stand in each layer instead of at the top.
  const bool uniform = artefact.rotations.size() == 1;
  ordered_json json{{"version", 1}, {"recipe", describe_codec(artefact)}};
  if (uniform) json["head_size"] = artefact.layers.front().head_dim;
  json["num_q_heads"] = artefact.num_q_heads;
  json["model_name"] = artefact.provenance.model;
  json["transform_version"] = "turboquant_lab_v1";
  json["codebook_version"] = "turboquant_lab_v1";
  json["artefact_sha256"] = artefact_digest(artefact);
  json["sigma_convention"] = "1/sqrt(d)";
  json["key_basis"] = artefact.key_basis;
  if (artefact.softmax_scale) json["softmax_scale"] = *artefact.softmax_scale;
  add_policy(json, artefact.policy);
  if (uniform) json["rotation"] = rotation_json(artefact.rotations.begin()->second);
  json["layers"] = ordered_json::object();
  for (std::size_t i = 0; i < artefact.layers.size(); ++i) {
    // The name of the attention module in the engines that read this file.
    json["layers"][fmt::format("model.layers.{}.self_attn.attn", i)] =
        layer_json(artefact.layers[i], artefact, uniform);
  }
  json["calibration"] = calibration_json(artefact.provenance);
  return json_text(json);
}

}  // namespace tq
