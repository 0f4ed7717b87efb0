#include <bit>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <span>

#include "calibration/artefact/codec_json.h"
#include "calibration/artefact/digest.h"
#include "calibration/artefact/export_formats.h"
#include "calibration/artefact/export_layout.h"
#include "calibration/artefact/table_checks.h"

namespace tq {
namespace {

using nlohmann::ordered_json;

// The header and the data of a safetensors file as they grow: tensors stand in the data in the order of
// add().
class SafetensorsWriter {
 public:
  void metadata(const std::string& key, std::string_view value) { metadata_[key] = value; }

  void add(const std::string& name, const std::vector<std::size_t>& shape, std::span<const float> values) {
    const std::size_t begin = data_.size();
    for (const float value : values) append(std::bit_cast<std::uint32_t>(value), 4);
    describe(name, "F32", shape, begin);
  }
  void add(const std::string& name, const std::vector<std::size_t>& shape,
           std::span<const std::int32_t> values) {
    const std::size_t begin = data_.size();
    for (const std::int32_t value : values) append(static_cast<std::uint32_t>(value), 4);
    describe(name, "I32", shape, begin);
  }

  std::string finish() {
    ordered_json header{{"__metadata__", metadata_}};
    header.update(tensors_);
    std::string text = header.dump(-1, ' ', false, ordered_json::error_handler_t::replace);
    text.resize((text.size() + 7) / 8 * 8, ' ');
    std::string data = std::exchange(data_, {});
    append(text.size(), 8);
    return data_ + text + data;
  }

 private:
  void append(std::uint64_t value, int bytes) {
    for (int i = 0; i < bytes; ++i) data_ += static_cast<char>(value >> (8 * i) & 0xff);
  }
  void describe(const std::string& name, std::string_view type, const std::vector<std::size_t>& shape,
                std::size_t begin) {
    tensors_[name] = {{"dtype", type}, {"shape", shape}, {"data_offsets", {begin, data_.size()}}};
  }

  ordered_json metadata_ = ordered_json::object();
  ordered_json tensors_ = ordered_json::object();
  std::string data_;
};

void add_signs(SafetensorsWriter& writer, const std::string& name, const Rotation& rht) {
  const auto head_dim = static_cast<std::size_t>(rht.head_dim());
  const std::vector<std::int32_t> permutation(rht.permutation().begin(), rht.permutation().end());
  writer.add(name + ".signs", {head_dim}, rht.signs());
  writer.add(name + ".permutation", {head_dim}, permutation);
}

// `codebooks` of one side of a layer: [2^b] for one table, [kv_heads, 2^b] for one a head.
void add_codebooks(SafetensorsWriter& writer, const std::string& name,
                   const std::vector<const Codebook*>& codebooks) {
  std::vector<float> centroids, boundaries;
  bool midpoints = true;
  for (const Codebook* codebook : codebooks) {
    const std::vector<float> c = to_float32(codebook->centroids), b = to_float32(codebook->boundaries);
    centroids.insert(centroids.end(), c.begin(), c.end());
    boundaries.insert(boundaries.end(), b.begin(), b.end());
    midpoints &= boundaries_are_midpoints(*codebook);
  }
  const std::size_t heads = codebooks.size();
  const auto shape = [&](std::size_t values) {
    return heads == 1 ? std::vector<std::size_t>{values} : std::vector<std::size_t>{heads, values / heads};
  };
  writer.add(name + ".centroids", shape(centroids.size()), centroids);
  writer.add(name + ".boundaries", shape(boundaries.size()), boundaries);
  writer.metadata(name + ".boundaries_are_midpoints", midpoints ? "true" : "false");
}

void add_layer(SafetensorsWriter& writer, const std::string& name, const LayerArtefact& layer) {
  writer.metadata(name + ".head_dim", std::to_string(layer.head_dim));
  writer.metadata(name + ".num_kv_heads", std::to_string(layer.num_kv_heads));
  writer.metadata(name + ".k.mode", to_string(layer.key.mode));
  writer.metadata(name + ".k.bits", std::to_string(layer.key.bits));
  if (layer.key.mode == KeyMode::prod) {
    writer.metadata(name + ".k.sketch", to_string(layer.key.sketch));
  } else {
    writer.metadata(name + ".k.scale", to_string(layer.key.scale));
  }
  std::vector<const Codebook*> codebooks;
  std::vector<float> scales;
  for (const KeyTables& tables : layer.key_tables) {
    codebooks.push_back(&tables.codebook);
    scales.push_back(static_cast<float>(tables.qjl_scale));
  }
  add_codebooks(writer, name + ".k", codebooks);
  writer.add(name + ".k.qjl_scale", {scales.size()}, scales);

  writer.metadata(name + ".v.mode", to_string(layer.value.mode));
  writer.metadata(name + ".v.bits", std::to_string(layer.value.bits));
  if (layer.value.mode == ValueMode::group) {
    writer.metadata(name + ".v.group_size", std::to_string(layer.value.group_size));
    return;
  }
  writer.metadata(name + ".v.scale", to_string(layer.value.scale));
  codebooks.clear();
  for (const Codebook& codebook : layer.value_tables) codebooks.push_back(&codebook);
  add_codebooks(writer, name + ".v", codebooks);
}

}  // namespace

std::string safetensors_bytes(const Artefact& artefact) {
  SafetensorsWriter writer;
  writer.metadata("format", kSafetensorsFormat);
  writer.metadata("format_version", "1");
  writer.metadata("codec", describe_codec(artefact));
  writer.metadata("artefact_sha256", artefact_digest(artefact));
  writer.metadata("num_layers", std::to_string(artefact.layers.size()));
  writer.metadata("num_q_heads", std::to_string(artefact.num_q_heads));
  writer.metadata("key_basis", artefact.key_basis);
  if (artefact.softmax_scale) writer.metadata("softmax_scale", fmt::format("{}", *artefact.softmax_scale));
  if (artefact.policy) {
    writer.metadata("recent_window", std::to_string(artefact.policy->recent));
    writer.metadata("first_tokens", std::to_string(artefact.policy->sinks));
  }
  writer.metadata("sigma_convention", "1/sqrt(d)");
  writer.metadata("qjl_scale_convention", "alpha");
  writer.metadata("sign_of_zero", "-1");
  writer.metadata("model", artefact.provenance.model);
  // One string, because metadata knows no other type.
  writer.metadata(
      "calibration",
      calibration_json(artefact.provenance).dump(-1, ' ', false, ordered_json::error_handler_t::replace));

  for (std::size_t i = 0; i < artefact.layers.size(); ++i) {
    add_layer(writer, fmt::format("layers.{}", i), artefact.layers[i]);
  }
  for (const auto& [head_dim, rotation] : artefact.rotations) {
    const std::string name = fmt::format("rotation.{}", head_dim);
    const auto d = static_cast<std::size_t>(head_dim);
    writer.metadata(name + ".kind", to_string(rotation.kind()));
    writer.metadata(name + ".seed", std::to_string(rotation.seed()));
    if (rotation.kind() == RotationKind::rht) {
      add_signs(writer, name, rotation);
    } else {
      writer.add(name + ".matrix", {d, d}, rotation.matrix());
    }
  }
  for (const auto& [head_dim, sketch] : artefact.sketches) {
    const std::string name = fmt::format("sketch.{}", head_dim);
    const auto d = static_cast<std::size_t>(head_dim);
    writer.metadata(name + ".kind", to_string(sketch.kind()));
    writer.metadata(name + ".seed", std::to_string(sketch.seed()));
    if (sketch.kind() == SketchKind::orthogonal) {
      add_signs(writer, name, sketch.rht());
    } else {
      writer.add(name + ".matrix", {d, d}, sketch.matrix());
    }
  }
  return writer.finish();
}

}  // namespace tq
