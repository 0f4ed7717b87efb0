#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include <fmt/format.h>

// Names that the writer and the reader of an export share.
namespace tq {

// upstream-json. The manifest names the codec, the layers' folders hold the tables.
inline constexpr std::string_view kUpstreamManifest = "turboquant_export.json";
inline constexpr std::string_view kUpstreamFormat = "turboquant-upstream-json";
inline constexpr std::string_view kUpstreamScaleFile = "qjl_scale.json";
inline constexpr std::string_view kUpstreamValueFolder = "value";
inline std::string upstream_layer_folder(std::size_t layer) { return fmt::format("layer_{:03}", layer); }
inline std::string upstream_head_folder(std::size_t head) { return fmt::format("head_{:02}", head); }
inline std::string upstream_codebook_file(int head_dim, int bits) {
  return fmt::format("codebook_d{}_b{}.json", head_dim, bits);
}

// safetensors: the `format` that the metadata states.
inline constexpr std::string_view kSafetensorsFormat = "turboquant-safetensors";

// c-header.
inline constexpr std::string_view kCHeaderFirstLine = "/* turboquant-c-header 1";
// "tq_layer_003_key", or "tq_layer_003_head_01_key" where every head has its table.
inline std::string c_header_table(std::size_t layer, std::size_t head, std::size_t tables,
                                  std::string_view side) {
  return tables == 1 ? fmt::format("tq_layer_{:03}_{}", layer, side)
                     : fmt::format("tq_layer_{:03}_head_{:02}_{}", layer, head, side);
}
inline std::string c_header_macro(std::size_t layer, std::string_view name) {
  return fmt::format("TQ_LAYER_{:03}_{}", layer, name);
}

}  // namespace tq
