#include <limits>
#include <span>

#include "calibration/artefact/artefact.h"
#include "calibration/artefact/artefact_layout.h"
#include "calibration/artefact/digest.h"
#include "calibration/artefact/export_formats.h"
#include "calibration/artefact/table_checks.h"
#include "datasets/atomic_file.h"
#include "datasets/hdf5.h"

namespace tq {
namespace {

using hdf5::Object;

// float32, and the float64 originals beside them.
void write_numbers(const Object& group, const std::string& name, const hdf5::Extents& extents,
                   const std::vector<double>& values) {
  hdf5::write_array(group, name, extents, to_float32(values));
  hdf5::write_array(group, name + "_f64", extents, values);
}

void write_codebooks(const Object& group, const std::vector<const Codebook*>& codebooks) {
  std::vector<double> centroids, boundaries;
  for (const Codebook* codebook : codebooks) {
    centroids.insert(centroids.end(), codebook->centroids.begin(), codebook->centroids.end());
    boundaries.insert(boundaries.end(), codebook->boundaries.begin(), codebook->boundaries.end());
  }
  const std::size_t tables = codebooks.size();
  const auto extents = [&](std::size_t values) {
    return tables == 1 ? hdf5::Extents{values} : hdf5::Extents{tables, values / tables};
  };
  write_numbers(group, "centroids", extents(centroids.size()), centroids);
  write_numbers(group, "boundaries", extents(boundaries.size()), boundaries);
}

void write_key(const Object& group, const LayerArtefact& layer) {
  hdf5::write_attribute(group, "mode", to_string(layer.key.mode));
  hdf5::write_attribute(group, "bits", layer.key.bits);
  if (layer.key.mode == KeyMode::prod) {
    hdf5::write_attribute(group, "sketch", to_string(layer.key.sketch));
  } else {
    hdf5::write_attribute(group, "scale", to_string(layer.key.scale));
  }
  std::vector<const Codebook*> codebooks;
  std::vector<double> scales;
  for (const KeyTables& tables : layer.key_tables) {
    codebooks.push_back(&tables.codebook);
    scales.push_back(tables.qjl_scale);
  }
  write_codebooks(group, codebooks);
  write_numbers(group, "qjl_scale", {scales.size()}, scales);
  for (const char* name : {"qjl_scale", "qjl_scale_f64"}) {
    hdf5::write_attribute(hdf5::open_object(group, name), "convention", "alpha");
  }
}

void write_value(const Object& group, const LayerArtefact& layer) {
  hdf5::write_attribute(group, "mode", to_string(layer.value.mode));
  hdf5::write_attribute(group, "bits", layer.value.bits);
  if (layer.value.mode == ValueMode::group) {
    hdf5::write_attribute(group, "group_size", layer.value.group_size);
    return;
  }
  hdf5::write_attribute(group, "scale", to_string(layer.value.scale));
  std::vector<const Codebook*> codebooks;
  for (const Codebook& codebook : layer.value_tables) codebooks.push_back(&codebook);
  write_codebooks(group, codebooks);
}

void write_gate(const Object& group, const GateRecord& gate) {
  hdf5::write_attribute(group, "kept", gate.kept);
  hdf5::write_attribute(group, "reason", std::string_view(gate.reason));
  if (gate.candidates.empty()) return;
  constexpr double kAbsent = std::numeric_limits<double>::quiet_NaN();
  std::vector<double> scores;
  for (const Candidate& candidate : gate.candidates) {
    for (const TableMetrics* part : {&candidate.fit, &candidate.held_out}) {
      scores.insert(scores.end(),
                    {part->relative_mse, part->cosine, part->softmax_kl.value_or(kAbsent),
                     part->top1_agreement.value_or(kAbsent), part->output_error.value_or(kAbsent)});
    }
  }
  hdf5::write_array(group, "scores", {gate.candidates.size(), kScoreParts, kScoreMetrics}, scores);
  const Object dataset = hdf5::open_object(group, "scores");
  hdf5::write_attribute(dataset, "parts", kScorePartNames);
  hdf5::write_attribute(dataset, "metrics", kScoreMetricNames);
  for (std::size_t i = 0; i < gate.candidates.size(); ++i) {
    hdf5::write_attribute(dataset, candidate_name(i), std::string_view(gate.candidates[i].name));
  }
}

// One bit a sign, least significant first, 1 for -1: what Rotation::stored_bytes() counts.
std::vector<std::uint8_t> sign_bits(std::span<const float> signs) {
  std::vector<std::uint8_t> bytes(signs.size() / 8);
  for (std::size_t i = 0; i < signs.size(); ++i) {
    if (signs[i] < 0) bytes[i / 8] |= static_cast<std::uint8_t>(1u << (i % 8));
  }
  return bytes;
}

// Seeds use all 64 bits, which integers of some readers do not hold: decimal text.
void write_kind_and_seed(const Object& group, std::string_view kind, std::uint64_t seed) {
  hdf5::write_attribute(group, "kind", kind);
  hdf5::write_attribute(group, "seed", std::string_view(std::to_string(seed)));
}

void write_rht(const Object& group, const Rotation& rht) {
  const auto d = static_cast<std::size_t>(rht.head_dim());
  hdf5::write_array(group, "sign_bits", {d / 8}, sign_bits(rht.signs()));
  hdf5::write_array(group, "permutation", {d},
                    std::vector<std::uint16_t>(rht.permutation().begin(), rht.permutation().end()));
}

void write_matrix(const Object& group, int head_dim, std::span<const float> matrix) {
  const auto d = static_cast<std::size_t>(head_dim);
  hdf5::write_array(group, "matrix", {d, d}, std::vector<float>(matrix.begin(), matrix.end()));
}

void write_object(const Object& group, const Rotation& rotation) {
  write_kind_and_seed(group, to_string(rotation.kind()), rotation.seed());
  if (rotation.kind() == RotationKind::rht) return write_rht(group, rotation);
  write_matrix(group, rotation.head_dim(), rotation.matrix());
}

void write_object(const Object& group, const Sketch& sketch) {
  write_kind_and_seed(group, to_string(sketch.kind()), sketch.seed());
  if (sketch.kind() == SketchKind::orthogonal) return write_rht(group, sketch.rht());
  write_matrix(group, sketch.head_dim(), sketch.matrix());
}

void write_provenance(const Object& root, const Provenance& provenance) {
  const Object group = hdf5::create_group(root, "provenance");
  hdf5::write_attribute(group, "tool_version", std::string_view(provenance.tool_version));
  hdf5::write_attribute(group, "command_line", std::string_view(provenance.command_line));
  hdf5::write_attribute(group, "utc_time", std::string_view(provenance.utc_time));
  hdf5::write_attribute(group, "capture_name", std::string_view(provenance.capture_name));
  hdf5::write_attribute(group, "capture_sha256", std::string_view(provenance.capture_sha256));
  hdf5::write_attribute(group, "model", std::string_view(provenance.model));
  hdf5::write_attribute(group, "fit_tokens", provenance.fit_tokens);
  hdf5::write_attribute(group, "held_out_tokens", provenance.held_out_tokens);
}

}  // namespace

void write_contents(const Object& root, const Artefact& artefact, std::string_view format) {
  hdf5::write_attribute(root, "format", format);
  hdf5::write_attribute(root, "format_version", kArtefactVersion);
  hdf5::write_attribute(root, "codec", std::string_view(describe_codec(artefact)));
  hdf5::write_attribute(root, "num_layers", static_cast<std::int64_t>(artefact.layers.size()));
  hdf5::write_attribute(root, "num_q_heads", artefact.num_q_heads);
  hdf5::write_attribute(root, "key_basis", std::string_view(artefact.key_basis));
  if (artefact.softmax_scale) hdf5::write_attribute(root, "softmax_scale", *artefact.softmax_scale);
  if (artefact.policy) {
    hdf5::write_attribute(root, "recent_window", artefact.policy->recent);
    hdf5::write_attribute(root, "first_tokens", artefact.policy->sinks);
  }
  hdf5::write_attribute(root, "sha256", std::string_view(artefact_digest(artefact)));
  hdf5::write_attribute(root, "evidence_sha256", std::string_view(evidence_digest(artefact)));
  write_provenance(root, artefact.provenance);

  const Object rotations = hdf5::create_group(root, "rotations");
  for (const auto& [head_dim, rotation] : artefact.rotations) {
    write_object(hdf5::create_group(rotations, std::to_string(head_dim)), rotation);
  }
  const Object sketches = hdf5::create_group(root, "sketches");
  for (const auto& [head_dim, sketch] : artefact.sketches) {
    write_object(hdf5::create_group(sketches, std::to_string(head_dim)), sketch);
  }
  const Object layers = hdf5::create_group(root, "layers");
  for (std::size_t i = 0; i < artefact.layers.size(); ++i) {
    const LayerArtefact& layer = artefact.layers[i];
    const Object group = hdf5::create_group(layers, layer_name(i));
    hdf5::write_attribute(group, "head_dim", layer.head_dim);
    hdf5::write_attribute(group, "num_kv_heads", layer.num_kv_heads);
    write_key(hdf5::create_group(group, "key"), layer);
    write_value(hdf5::create_group(group, "value"), layer);
    const Object metrics = hdf5::create_group(group, "metrics");
    write_gate(hdf5::create_group(metrics, "key"), layer.key_gate);
    write_gate(hdf5::create_group(metrics, "value"), layer.value_gate);
  }
}

void write_artefact(const Artefact& artefact, const std::string& path) {
  validate(artefact, path);
  AtomicFile output(path);
  {
    hdf5::File file = hdf5::create_for_writing(output.temporary(), path);
    write_contents(file.root(), artefact, kArtefactFormat);
    file.close();
  }
  output.commit();
}

}  // namespace tq
