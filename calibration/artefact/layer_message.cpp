#include "calibration/artefact/layer_message.h"

namespace tq {
namespace {

void pack(const Codebook& codebook, MessageWriter& message) {
  message.put(codebook.bits);
  message.put_list(codebook.centroids);
  message.put_list(codebook.boundaries);
}

Codebook unpack_codebook(MessageReader& message) {
  Codebook codebook;
  codebook.bits = message.take<int>();
  codebook.centroids = message.take_list<double>();
  codebook.boundaries = message.take_list<double>();
  return codebook;
}

void pack(const GateRecord& gate, MessageWriter& message) {
  message.put(gate.kept);
  message.put_text(gate.reason);
  message.put(gate.candidates.size());
  for (const Candidate& candidate : gate.candidates) {
    message.put_text(candidate.name);
    message.put(candidate.fit);
    message.put(candidate.held_out);
  }
}

GateRecord unpack_gate(MessageReader& message) {
  GateRecord gate;
  gate.kept = message.take<int>();
  gate.reason = message.take_text();
  gate.candidates.resize(message.take<std::size_t>());
  for (Candidate& candidate : gate.candidates) {
    candidate.name = message.take_text();
    candidate.fit = message.take<TableMetrics>();
    candidate.held_out = message.take<TableMetrics>();
  }
  return gate;
}

}  // namespace

void pack(const LayerArtefact& layer, MessageWriter& message) {
  message.put(layer.head_dim);
  message.put(layer.num_kv_heads);
  message.put(layer.key);
  message.put(layer.value);
  message.put(layer.key_tables.size());
  for (const KeyTables& tables : layer.key_tables) {
    pack(tables.codebook, message);
    message.put(tables.qjl_scale);
  }
  message.put(layer.value_tables.size());
  for (const Codebook& codebook : layer.value_tables) pack(codebook, message);
  pack(layer.key_gate, message);
  pack(layer.value_gate, message);
}

LayerArtefact unpack_layer(MessageReader& message) {
  LayerArtefact layer;
  layer.head_dim = message.take<int>();
  layer.num_kv_heads = message.take<int>();
  layer.key = message.take<KeyConfig>();
  layer.value = message.take<ValueConfig>();
  layer.key_tables.resize(message.take<std::size_t>());
  for (KeyTables& tables : layer.key_tables) {
    tables.codebook = unpack_codebook(message);
    tables.qjl_scale = message.take<double>();
  }
  layer.value_tables.resize(message.take<std::size_t>());
  for (Codebook& codebook : layer.value_tables) codebook = unpack_codebook(message);
  layer.key_gate = unpack_gate(message);
  layer.value_gate = unpack_gate(message);
  return layer;
}

}  // namespace tq
