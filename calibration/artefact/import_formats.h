#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include "calibration/artefact/import.h"
#include "datasets/json_strict.h"

// One reader a format, behind import_tables(). They check structure and types; import_tables() then checks
// the tables.
namespace tq {

// The most that a reader lets a file claim.
inline constexpr std::size_t kMostTableValues = 257;  // boundaries of 8 bits
inline constexpr int kMostDims = 4096;

ImportedTables read_upstream_folder(const std::string& folder);
ImportedTables read_upstream_file(const JsonNode& root, const std::string& path);
ImportedTables read_kv_json(const JsonNode& root);
ImportedTables read_safetensors(std::string_view bytes, const std::string& path);
ImportedTables read_c_header(std::string_view text, const std::string& path);

}  // namespace tq
