#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "calibration/artefact/artefact.h"

namespace tq {

enum class SourceFormat { master, upstream_json, kv_json, safetensors, c_header };
std::string_view to_string(SourceFormat format);

// A rotation or sketch that a file names without carrying it: drawn again from the seed, and then checked.
struct SeededObject {
  std::string kind;
  std::uint64_t seed = 0;
  std::string sha256;  // calibration/digest.h
  friend bool operator==(const SeededObject&, const SeededObject&) = default;
};

struct ImportedTable {
  Codebook codebook;
  std::optional<double> qjl_scale{};             // keys only: the bare alpha
  std::optional<double> stated_mse_per_coord{};  // what an upstream JSON file says of itself
  std::optional<double> stated_mse_total{};
};

struct ImportedLayer {
  std::string name;  // as the file has it: "layer_000", "model.layers.0.self_attn.attn", a file's name
  int head_dim = 0;
  std::optional<int> num_kv_heads;
  std::optional<KeyConfig> key;
  std::optional<ValueConfig> value;
  std::vector<ImportedTable> key_tables;    // one, or one a KV head
  std::vector<ImportedTable> value_tables;  // the same; empty without rotated values
};

// What a file of any format says. Tables are valid; everything else may be absent.
struct ImportedTables {
  SourceFormat format = SourceFormat::master;
  std::vector<ImportedLayer> layers;
  std::vector<std::string> unknown;  // places of items that the format does not have
  std::optional<int> num_q_heads;
  std::optional<std::string> key_basis;
  std::optional<double> softmax_scale;
  std::optional<CachePolicy> policy;
  std::optional<std::string> digest;  // of the artefact that was exported
  Provenance provenance;
  // By head_dim; an object stands in one of the two maps.
  std::map<int, Rotation> rotations;
  std::map<int, SeededObject> seeded_rotations;
  std::map<int, Sketch> sketches;
  std::map<int, SeededObject> seeded_sketches;
};

// Reads a master copy or an export, told apart by content and not by name: a `*.tq.h5`, an upstream codebook
// file, a folder of them, a folder that the upstream-json export wrote, a turboquant_kv.json, a safetensors
// file, a C header of ours. Throws InputError where the content is none of these, damaged or inconsistent.
ImportedTables import_tables(const std::string& path, Trust trust = Trust::none);

// The same, as an artefact with empty gate records (a master copy keeps its own). Throws InputError that says
// what the file lacks, where it lacks something; where a rotation or sketch drawn again has another digest;
// and where the file holds items that the format does not have, which would be lost.
Artefact import_artefact(const std::string& path, Trust trust = Trust::none);

// The tables of an artefact.
ImportedTables tables_of(const Artefact& artefact);

}  // namespace tq
