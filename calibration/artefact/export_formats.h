#pragma once

#include <string>

#include "calibration/artefact/artefact.h"

// One writer a format, behind export_artefact(). The artefact is valid.
namespace tq {

void write_upstream_folder(const Artefact& artefact, const std::string& folder);
std::string kv_json_text(const Artefact& artefact);
std::string safetensors_bytes(const Artefact& artefact);
std::string c_header_text(const Artefact& artefact);

// "prod3-orthogonal+rotated3-nc", or "mixed" when layers differ.
std::string describe_codec(const Artefact& artefact);

}  // namespace tq
