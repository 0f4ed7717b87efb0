#include "calibration/artefact/digest.h"

#include "calibration/artefact/table_checks.h"
#include "core/field_hash.h"

namespace tq {
namespace {

void add(FieldHash& hash, const Rotation& rotation) {
  hash.text(to_string(rotation.kind()));
  hash.integer(rotation.head_dim());
  hash.numbers(rotation.signs());
  hash.numbers(rotation.permutation());
  hash.numbers(rotation.matrix());
}

void add(FieldHash& hash, const Sketch& sketch) {
  hash.text(to_string(sketch.kind()));
  hash.integer(sketch.head_dim());
  if (sketch.kind() == SketchKind::orthogonal) {
    hash.numbers(sketch.rht().signs());
    hash.numbers(sketch.rht().permutation());
  } else {
    hash.numbers(sketch.matrix());
  }
}

void add(FieldHash& hash, const Codebook& codebook) {
  hash.integer(codebook.bits);
  hash.numbers(to_float32(codebook.centroids));
  hash.numbers(to_float32(codebook.boundaries));
}

// Only the fields that the mode uses: the others do not reach a decoder.
void add(FieldHash& hash, const KeyConfig& key) {
  hash.text(to_string(key.mode));
  hash.integer(key.bits);
  hash.text(key.mode == KeyMode::prod ? to_string(key.sketch) : to_string(key.scale));
}

void add(FieldHash& hash, const ValueConfig& value) {
  hash.text(to_string(value.mode));
  hash.integer(value.bits);
  if (value.mode == ValueMode::group) {
    hash.integer(value.group_size);
  } else {
    hash.text(to_string(value.scale));
  }
}

void add_float64(FieldHash& hash, const Codebook& codebook) {
  hash.numbers(codebook.centroids);
  hash.numbers(codebook.boundaries);
}

void add(FieldHash& hash, const TableMetrics& metrics) {
  hash.number(metrics.relative_mse);
  hash.number(metrics.cosine);
  hash.optional_number(metrics.softmax_kl);
  hash.optional_number(metrics.top1_agreement);
  hash.optional_number(metrics.output_error);
}

void add(FieldHash& hash, const GateRecord& gate) {
  hash.integer(gate.kept);
  hash.text(gate.reason);
  hash.integer(static_cast<std::int64_t>(gate.candidates.size()));
  for (const Candidate& candidate : gate.candidates) {
    hash.text(candidate.name);
    add(hash, candidate.fit);
    add(hash, candidate.held_out);
  }
}

void add(FieldHash& hash, const Provenance& provenance) {
  hash.text(provenance.tool_version);
  hash.text(provenance.command_line);
  hash.text(provenance.utc_time);
  hash.text(provenance.capture_name);
  hash.text(provenance.capture_sha256);
  hash.text(provenance.model);
  hash.integer(provenance.fit_tokens);
  hash.integer(provenance.held_out_tokens);
}

}  // namespace

std::string rotation_digest(const Rotation& rotation) {
  FieldHash hash;
  hash.text("turboquant-rotation");
  add(hash, rotation);
  return to_hex(hash.finish());
}

std::string sketch_digest(const Sketch& sketch) {
  FieldHash hash;
  hash.text("turboquant-sketch");
  add(hash, sketch);
  return to_hex(hash.finish());
}

std::string artefact_digest(const Artefact& artefact) {
  FieldHash hash;
  hash.text("turboquant-artefact");
  hash.integer(1);  // of this serialisation
  hash.integer(artefact.num_q_heads);
  hash.text(artefact.key_basis);
  hash.optional_number(artefact.softmax_scale);
  hash.integer(static_cast<std::int64_t>(artefact.rotations.size()));
  for (const auto& [head_dim, rotation] : artefact.rotations) add(hash, rotation);
  hash.integer(static_cast<std::int64_t>(artefact.sketches.size()));
  for (const auto& [head_dim, sketch] : artefact.sketches) add(hash, sketch);
  hash.integer(static_cast<std::int64_t>(artefact.layers.size()));
  for (const LayerArtefact& layer : artefact.layers) {
    hash.integer(layer.head_dim);
    hash.integer(layer.num_kv_heads);
    add(hash, layer.key);
    add(hash, layer.value);
    hash.integer(static_cast<std::int64_t>(layer.key_tables.size()));
    for (const KeyTables& tables : layer.key_tables) {
      add(hash, tables.codebook);
      hash.numbers(to_float32({tables.qjl_scale}));
    }
    hash.integer(static_cast<std::int64_t>(layer.value_tables.size()));
    for (const Codebook& codebook : layer.value_tables) add(hash, codebook);
  }
  if (artefact.policy) {
    hash.text("policy");
    hash.integer(artefact.policy->recent);
    hash.integer(artefact.policy->sinks);
  }
  return to_hex(hash.finish());
}

std::string evidence_digest(const Artefact& artefact) {
  FieldHash hash;
  hash.text("turboquant-evidence");
  hash.integer(1);  // of this serialisation
  add(hash, artefact.provenance);
  for (const auto& [head_dim, rotation] : artefact.rotations) hash.text(std::to_string(rotation.seed()));
  for (const auto& [head_dim, sketch] : artefact.sketches) hash.text(std::to_string(sketch.seed()));
  // How many there are of everything is in the other digest.
  for (const LayerArtefact& layer : artefact.layers) {
    for (const KeyTables& tables : layer.key_tables) {
      add_float64(hash, tables.codebook);
      hash.number(tables.qjl_scale);
    }
    for (const Codebook& codebook : layer.value_tables) add_float64(hash, codebook);
    add(hash, layer.key_gate);
    add(hash, layer.value_gate);
  }
  return to_hex(hash.finish());
}

}  // namespace tq
