#include "calibration/artefact/export.h"

#include <array>

#include "calibration/artefact/export_formats.h"
#include "core/error.h"
#include "datasets/atomic_file.h"

namespace tq {
namespace {

constexpr std::array<std::string_view, 4> kNames{"upstream-json", "kv-json", "safetensors", "c-header"};

}  // namespace

std::string_view to_string(ExportFormat format) { return kNames.at(static_cast<std::size_t>(format)); }

ExportFormat parse_export_format(std::string_view option, std::string_view text) {
  for (std::size_t i = 0; i < kNames.size(); ++i) {
    if (kNames[i] == text) return static_cast<ExportFormat>(i);
  }
  throw UsageError("{} '{}' is unknown; choose one of: {}", option, text, fmt::join(kNames, ", "));
}

std::string describe_codec(const Artefact& artefact) {
  std::string codec;
  for (const LayerArtefact& layer : artefact.layers) {
    const std::string own = describe(layer.key) + "+" + describe(layer.value);
    if (!codec.empty() && codec != own) return "mixed";
    codec = own;
  }
  return codec;
}

void export_artefact(const Artefact& artefact, ExportFormat format, const std::string& out_path) {
  validate(artefact, out_path);
  switch (format) {
    case ExportFormat::upstream_json:
      return write_upstream_folder(artefact, out_path);
    case ExportFormat::kv_json:
      return write_file_atomically(out_path, kv_json_text(artefact));
    case ExportFormat::safetensors:
      return write_file_atomically(out_path, safetensors_bytes(artefact));
    case ExportFormat::c_header:
      return write_file_atomically(out_path, c_header_text(artefact));
  }
}

}  // namespace tq
