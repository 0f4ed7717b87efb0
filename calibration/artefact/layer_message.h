#pragma once

#include "calibration/artefact/artefact.h"

// A layer to and from other processes of the same job (core/message.h).
namespace tq {

template <typename Archive>
void fields(Archive& archive, Codebook& codebook) {
  archive(codebook.bits, codebook.centroids, codebook.boundaries);
}

template <typename Archive>
void fields(Archive& archive, KeyTables& tables) {
  archive(tables.codebook, tables.qjl_scale);
}

template <typename Archive>
void fields(Archive& archive, Candidate& candidate) {
  archive(candidate.name, candidate.fit, candidate.held_out);
}

template <typename Archive>
void fields(Archive& archive, GateRecord& gate) {
  archive(gate.candidates, gate.kept, gate.reason);
}

template <typename Archive>
void fields(Archive& archive, LayerArtefact& layer) {
  archive(layer.head_dim, layer.num_kv_heads, layer.key, layer.value, layer.key_tables, layer.value_tables,
          layer.key_gate, layer.value_gate);
}

}  // namespace tq
