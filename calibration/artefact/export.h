#pragma once

#include <string>
#include <string_view>

#include "calibration/artefact/artefact.h"

namespace tq {

// What other programs read. Every export carries the tables so that reading them back (calibration/import.h)
// gives the same float32 values, and the digest of the artefact it was made from.
//   upstream_json: a folder; layer_NNN/codebook_d{d}_b{b}.json and layer_NNN/qjl_scale.json for the keys (in
//   head_HH/
//                  below that when every KV head has its table), layer_NNN/value/ likewise for rotated
//                  values, and turboquant_export.json, which names the codec. b: bits of the table (key bits
//                  - 1 in prod mode). Read by 0xSero/turboquant and themoddedcube/turboquant-plus.
//   kv_json:       one file, `turboquant_kv.json` by custom: metadata of a model for serving engines.
//   safetensors:   one file with float32 tables, rotations and sketches.
//   c_header:      one file of constants, C99 and C++17.
enum class ExportFormat { upstream_json, kv_json, safetensors, c_header };

// "upstream-json", "kv-json", "safetensors", "c-header".
std::string_view to_string(ExportFormat format);
// Throws UsageError that lists the choices. `option` names what was being set.
ExportFormat parse_export_format(std::string_view option, std::string_view text);

// Writes `artefact` (checked by validate() first: InputError) to `out_path`, whole or not at all. A file is
// replaced. A folder is replaced only where it holds an earlier export and nothing else, or nothing:
// UsageError otherwise. SystemError when it cannot be written.
void export_artefact(const Artefact& artefact, ExportFormat format, const std::string& out_path);

}  // namespace tq
