#include <iterator>
#include <span>

#include "calibration/artefact/digest.h"
#include "calibration/artefact/export_formats.h"
#include "calibration/artefact/export_layout.h"
#include "calibration/artefact/table_checks.h"
#include "core/error.h"

namespace tq {
namespace {

// Text of an artefact inside a comment or a string: printable ASCII that can neither end it nor continue a
// line.
std::string plain_text(std::string_view text) {
  std::string out;
  for (const char c : text) {
    const bool plain = c >= 0x20 && c < 0x7f && c != '*' && c != '\\' && c != '?' && c != '"';
    out += plain ? c : '_';
  }
  return out;
}

class HeaderWriter {
 public:
  template <typename... Args>
  void line(fmt::format_string<Args...> text, Args&&... args) {
    fmt::format_to(std::back_inserter(text_), text, std::forward<Args>(args)...);
    text_ += '\n';
  }

  // One value a line: the exact hexadecimal literal and, for a person, nine decimal digits.
  void table(const std::string& name, const std::vector<double>& values) {
    line("static const float {}[{}] = {{", name, values.size());
    for (const float value : to_float32(values)) line("    {:a}f, /* {:.9g} */", value, value);
    line("}};");
  }
  template <typename T>
  void integers(std::string_view type, const std::string& name, std::span<const T> values) {
    line("static const {} {}[{}] = {{", type, name, values.size());
    for (const T value : values) line("    {},", static_cast<int>(value));
    line("}};");
  }
  void codebook(const std::string& name, const Codebook& codebook) {
    line("/* The boundaries are{} the midpoints of neighbouring centroids. */",
         boundaries_are_midpoints(codebook) ? "" : " NOT");
    table(fmt::format("{}_b{}_centroids", name, codebook.bits), codebook.centroids);
    table(fmt::format("{}_b{}_boundaries", name, codebook.bits), codebook.boundaries);
  }
  void rht(const std::string& name, const Rotation& rotation) {
    integers("signed char", name + "_signs", rotation.signs());
    integers("unsigned short", name + "_permutation", rotation.permutation());
  }

  std::string finish() { return std::move(text_); }

 private:
  std::string text_;
};

void write_layer(HeaderWriter& out, std::size_t index, const LayerArtefact& layer) {
  const auto define = [&](std::string_view name, auto value) {
    out.line("#define {} {}", c_header_macro(index, name), value);
  };
  out.line("");
  out.line("/* Layer {}: {}, {} */", index, describe(layer.key), describe(layer.value));
  define("HEAD_DIM", layer.head_dim);
  define("KV_HEADS", layer.num_kv_heads);
  const auto define_text = [&](std::string_view name, std::string_view value) {
    define(name, fmt::format("\"{}\"", value));
  };
  define_text("KEY_MODE", to_string(layer.key.mode));
  define_text("KEY_SCALE", to_string(layer.key.scale));
  define_text("KEY_SKETCH", to_string(layer.key.sketch));
  define("KEY_TABLE_BITS", layer.key.table_bits());
  define("KEY_TABLES", layer.key_tables.size());
  define("KEY_SIGN_BIT", layer.key.mode == KeyMode::prod ? 1 : 0);
  define_text("VALUE_MODE", to_string(layer.value.mode));
  define_text("VALUE_SCALE", to_string(layer.value.scale));
  define("VALUE_BITS", layer.value.bits);
  define("VALUE_TABLES", layer.value_tables.size());
  define("VALUE_GROUP_SIZE", layer.value.group_size);

  const std::size_t keys = layer.key_tables.size(), values = layer.value_tables.size();
  for (std::size_t h = 0; h < keys; ++h) {
    const std::string name = c_header_table(index, h, keys, "key");
    out.codebook(name, layer.key_tables[h].codebook);
    const auto scale = static_cast<float>(layer.key_tables[h].qjl_scale);
    out.line("static const float {}_qjl_scale = {:a}f; /* {:.9g} */", name, scale, scale);
  }
  for (std::size_t h = 0; h < values; ++h) {
    out.codebook(c_header_table(index, h, values, "value"), layer.value_tables[h]);
  }
}

}  // namespace

std::string c_header_text(const Artefact& artefact) {
  HeaderWriter out;
  out.line("{}", kCHeaderFirstLine);
  out.line(" * codec: {}", describe_codec(artefact));
  out.line(" *");
  out.line(
      " * A coordinate y of the rotated unit vector has index i when boundaries[i] < y <= boundaries[i + 1], "
      "the");
  out.line(" * two ends open. qjl_scale is the bare alpha: a decoder divides by d. The sign of 0 is -1.");
  out.line(
      " * rht: rotated[i] = (H D x)[permutation[i]] / sqrt(d), D the signs, H the Hadamard matrix of order "
      "d.");
  out.line(" */");
  out.line("#ifndef TURBOQUANT_TABLES_H");
  out.line("#define TURBOQUANT_TABLES_H");
  out.line("");
  out.line("#define TQ_ARTEFACT_SHA256 \"{}\"", artefact_digest(artefact));
  out.line("#define TQ_MODEL \"{}\"", plain_text(artefact.provenance.model));
  out.line("#define TQ_NUM_LAYERS {}", artefact.layers.size());
  out.line("#define TQ_NUM_Q_HEADS {}", artefact.num_q_heads);
  out.line("#define TQ_KEY_BASIS \"{}\"", artefact.key_basis);
  // Without it: 1 / sqrt(head_dim).
  if (artefact.softmax_scale) out.line("#define TQ_SOFTMAX_SCALE {:a}", *artefact.softmax_scale);

  if (artefact.policy) {
    out.line("#define TQ_RECENT_WINDOW {}", artefact.policy->recent);
    out.line("#define TQ_FIRST_TOKENS {}", artefact.policy->sinks);
  }

  // A dense matrix would be most of the file: the seed and the digest stand for it, the safetensors export
  // carries it.
  for (const auto& [head_dim, rotation] : artefact.rotations) {
    out.line("");
    out.line("#define TQ_ROTATION_D{}_KIND \"{}\"", head_dim, to_string(rotation.kind()));
    out.line("#define TQ_ROTATION_D{}_SEED {}ull", head_dim, rotation.seed());
    out.line("#define TQ_ROTATION_D{}_SHA256 \"{}\"", head_dim, rotation_digest(rotation));
    if (rotation.kind() == RotationKind::rht) out.rht(fmt::format("tq_rotation_d{}", head_dim), rotation);
  }
  for (const auto& [head_dim, sketch] : artefact.sketches) {
    out.line("");
    out.line("#define TQ_SKETCH_D{}_KIND \"{}\"", head_dim, to_string(sketch.kind()));
    out.line("#define TQ_SKETCH_D{}_SEED {}ull", head_dim, sketch.seed());
    out.line("#define TQ_SKETCH_D{}_SHA256 \"{}\"", head_dim, sketch_digest(sketch));
    if (sketch.kind() == SketchKind::orthogonal)
      out.rht(fmt::format("tq_sketch_d{}", head_dim), sketch.rht());
  }
  for (std::size_t i = 0; i < artefact.layers.size(); ++i) write_layer(out, i, artefact.layers[i]);
  out.line("");
  out.line("#endif /* TURBOQUANT_TABLES_H */");
  return out.finish();
}

}  // namespace tq
