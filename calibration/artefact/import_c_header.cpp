#include <algorithm>
#include <charconv>
#include <cmath>
#include <map>
#include <utility>

#include "calibration/artefact/export_layout.h"
#include "calibration/artefact/import_formats.h"
#include "core/error.h"
#include "datasets/input_file.h"

namespace tq {
namespace {

// Reads the one dialect that the export writes, line by line: comments, macros of one value, float constants,
// float tables with one literal a line, and integer tables, whose content is not needed here.
class HeaderParser {
 public:
  HeaderParser(std::string_view text, std::string path) : rest_(text), path_(std::move(path)) {
    next();
    while (line_ != " */") {  // the comment at the top
      if (!line_.starts_with(" *") && number_ > 1) fail("a line of the first comment is wanted");
      next();
    }
    for (;;) {
      if (rest_.empty()) fail("the file ends before its #endif");
      next();
      if (line_.empty() || line_.starts_with("#ifndef ") || line_ == "#define TURBOQUANT_TABLES_H" ||
          (line_.starts_with("/* ") && line_.ends_with(" */"))) {
        continue;
      }
      if (line_.starts_with("#endif")) break;
      if (take("#define ")) {
        const std::size_t blank = line_.find(' ');
        if (blank == line_.npos) fail("a macro without a value");
        add(macros_, std::string(line_.substr(0, blank)), std::string(line_.substr(blank + 1)));
      } else if (take("static const float ")) {
        float_definition();
      } else if (take("static const signed char ") || take("static const unsigned short ")) {
        while (line_ != "}") skip_integer();
      } else {
        fail("not a line that the export writes");
      }
    }
    if (!rest_.empty()) fail("text after the last line");
  }

  int macro(const std::string& name, int lowest, int highest) {
    const auto node = macros_.extract(name);
    if (!node) throw InputError("{}: {} is not defined", path_, name);
    const auto value = parse_integer<int>(node.mapped());
    if (!value || *value < lowest || *value > highest) {
      throw InputError("{}: {}: an integer from {} to {} is wanted", path_, name, lowest, highest);
    }
    return *value;
  }
  bool has_macro(const std::string& name) const { return macros_.contains(name); }
  std::string text_macro(const std::string& name) const {
    const std::string value = value_of(name);
    if (value.size() < 2 || value.front() != '"' || value.back() != '"')
      throw InputError("{}: {}: a text in quotes is wanted", path_, name);
    return value.substr(1, value.size() - 2);
  }
  template <typename Enum>
  Enum choice_macro(const std::string& name) const {
    try {
      return parse_choice<Enum>(name, printable(text_macro(name)));
    } catch (const UsageError& error) {
      throw InputError("{}: {}", path_, error.what());
    }
  }
  // "7ull"
  std::uint64_t seed_macro(const std::string& name) const {
    const std::string value = value_of(name);
    const auto seed = value.ends_with("ull")
                          ? parse_integer<std::uint64_t>(std::string_view(value).substr(0, value.size() - 3))
                          : std::nullopt;
    if (!seed) throw InputError("{}: {}: a seed like 7ull is wanted", path_, name);
    return *seed;
  }
  // "0x1.6a09e6p-4", exact.
  double number_macro(const std::string& name) const {
    const std::string value = value_of(name);
    double number = 0;
    const auto [end, error] = std::from_chars(value.data() + std::min<std::size_t>(2, value.size()),
                                              value.data() + value.size(), number, std::chars_format::hex);
    if (!value.starts_with("0x") || error != std::errc() || end != value.data() + value.size() ||
        !std::isfinite(number)) {
      throw InputError("{}: {}: a hexadecimal float is wanted", path_, name);
    }
    return number;
  }
  std::vector<double> table(const std::string& name) {
    auto node = tables_.extract(name);
    if (!node) throw InputError("{}: {} is not defined", path_, name);
    return std::move(node.mapped());
  }
  // Tables that nobody took.
  std::vector<std::string> unknown() const {
    std::vector<std::string> names;
    for (const auto& [name, values] : tables_) names.push_back(printable(name));
    return names;
  }

 private:
  const std::string& value_of(const std::string& name) const {
    const auto found = macros_.find(name);
    if (found == macros_.end()) throw InputError("{}: {} is not defined", path_, name);
    return found->second;
  }
  [[noreturn]] void fail(std::string_view what) const {
    throw InputError("{}: line {}: {}", path_, number_, what);
  }

  void next() {
    const std::size_t end = rest_.find('\n');
    if (end == rest_.npos) fail("the file ends within a line or too early");
    line_ = rest_.substr(0, end);
    rest_.remove_prefix(end + 1);
    ++number_;
  }
  bool take(std::string_view prefix) {
    if (!line_.starts_with(prefix)) return false;
    line_.remove_prefix(prefix.size());
    return true;
  }
  void expect(std::string_view prefix) {
    if (!take(prefix)) fail(fmt::format("'{}' is wanted", prefix));
  }
  template <typename Map, typename Value>
  void add(Map& map, const std::string& name, Value value) {
    if (!map.emplace(name, std::move(value)).second) fail("the name is defined twice");
  }

  // "-0x1.8p-3f", exact.
  double literal() {
    const bool negative = take("-");
    expect("0x");
    float value = 0;
    const auto [end, error] =
        std::from_chars(line_.data(), line_.data() + line_.size(), value, std::chars_format::hex);
    if (error != std::errc() || !std::isfinite(value)) fail("a hexadecimal float is wanted");
    line_.remove_prefix(static_cast<std::size_t>(end - line_.data()));
    expect("f");
    return negative ? -value : value;
  }
  std::string_view identifier() {
    const std::size_t end = line_.find_first_of(" [");
    if (end == line_.npos) fail("a name is wanted");
    const std::string_view name = line_.substr(0, end);
    line_.remove_prefix(end);
    return name;
  }
  void float_definition() {
    const std::string name(identifier());
    if (take(" = ")) {
      const double value = literal();
      expect(";");
      return add(tables_, name, std::vector<double>{value});
    }
    expect("[");
    const std::string_view extent = line_.substr(0, line_.find(']'));
    const std::size_t size = parse_integer<std::size_t>(extent).value_or(0);
    if (size < 1 || size > kMostTableValues) fail("a table has 1 to 257 values");
    line_.remove_prefix(extent.size());
    expect("] = {");
    std::vector<double> values;
    for (next(); line_ != "};"; next()) {
      expect("    ");
      values.push_back(literal());
      expect(", /* ");
      if (values.size() > size) fail("more values than the table's size");
    }
    if (values.size() != size) fail("fewer values than the table's size");
    add(tables_, name, std::move(values));
  }
  void skip_integer() {
    next();
    if (line_ == "};") {
      line_.remove_suffix(1);
      return;
    }
    expect("    ");
    if (line_.find_first_not_of("-0123456789,") != line_.npos) fail("an integer is wanted");
  }

  std::string_view rest_, line_;
  std::string path_;
  std::size_t number_ = 0;
  std::map<std::string, std::string> macros_;
  std::map<std::string, std::vector<double>> tables_;
};

// A rotation or sketch by its seed and digest; the signs in the file are for the C compiler.
SeededObject seeded_object(const HeaderParser& header, std::string_view what, int head_dim) {
  const std::string prefix = fmt::format("TQ_{}_D{}_", what, head_dim);
  return {header.text_macro(prefix + "KIND"), header.seed_macro(prefix + "SEED"),
          header.text_macro(prefix + "SHA256")};
}

}  // namespace

ImportedTables read_c_header(std::string_view text, const std::string& path) {
  HeaderParser header(text, path);
  ImportedTables out;
  out.format = SourceFormat::c_header;
  out.digest = header.text_macro("TQ_ARTEFACT_SHA256");
  out.num_q_heads = header.macro("TQ_NUM_Q_HEADS", 1, kMaxHeads);
  out.provenance.model = header.text_macro("TQ_MODEL");
  out.key_basis = header.text_macro("TQ_KEY_BASIS");
  if (header.has_macro("TQ_SOFTMAX_SCALE")) out.softmax_scale = header.number_macro("TQ_SOFTMAX_SCALE");
  if (header.has_macro("TQ_RECENT_WINDOW") || header.has_macro("TQ_FIRST_TOKENS")) {
    out.policy = CachePolicy{.recent = header.macro("TQ_RECENT_WINDOW", 0, kMaxPolicyTokens),
                             .sinks = header.macro("TQ_FIRST_TOKENS", 0, kMaxPolicyTokens)};
  }
  const int layers = header.macro("TQ_NUM_LAYERS", 1, static_cast<int>(kMaxLayers));
  for (std::size_t i = 0; i < static_cast<std::size_t>(layers); ++i) {
    ImportedLayer layer;
    layer.name = fmt::format("layer {}", i);
    layer.head_dim = header.macro(c_header_macro(i, "HEAD_DIM"), 4, kMostDims);
    layer.num_kv_heads = header.macro(c_header_macro(i, "KV_HEADS"), 1, kMaxHeads);
    const auto read_side = [&](std::string_view side, std::size_t count, int bits, bool is_key) {
      std::vector<ImportedTable> tables;
      for (std::size_t h = 0; h < count; ++h) {
        const std::string name = c_header_table(i, h, count, side);
        ImportedTable table;
        table.codebook = {bits, header.table(fmt::format("{}_b{}_centroids", name, bits)),
                          header.table(fmt::format("{}_b{}_boundaries", name, bits))};
        if (is_key) table.qjl_scale = header.table(name + "_qjl_scale").front();
        tables.push_back(std::move(table));
      }
      return tables;
    };
    const int key_bits = header.macro(c_header_macro(i, "KEY_TABLE_BITS"), 1, 8);
    const int value_bits = header.macro(c_header_macro(i, "VALUE_BITS"), 1, 8);
    const auto key_tables =
        static_cast<std::size_t>(header.macro(c_header_macro(i, "KEY_TABLES"), 1, kMaxHeads));
    const auto value_tables =
        static_cast<std::size_t>(header.macro(c_header_macro(i, "VALUE_TABLES"), 0, kMaxHeads));
    const KeyMode mode = header.choice_macro<KeyMode>(c_header_macro(i, "KEY_MODE"));
    layer.key = KeyConfig{mode, key_bits + (mode == KeyMode::prod ? 1 : 0),
                          header.choice_macro<ScaleRule>(c_header_macro(i, "KEY_SCALE")),
                          header.choice_macro<SketchKind>(c_header_macro(i, "KEY_SKETCH"))};
    layer.value = ValueConfig{header.choice_macro<ValueMode>(c_header_macro(i, "VALUE_MODE")), value_bits,
                              header.macro(c_header_macro(i, "VALUE_GROUP_SIZE"), 1, kMostDims),
                              header.choice_macro<ScaleRule>(c_header_macro(i, "VALUE_SCALE"))};
    out.seeded_rotations.try_emplace(layer.head_dim, seeded_object(header, "ROTATION", layer.head_dim));
    if (mode == KeyMode::prod) {
      out.seeded_sketches.try_emplace(layer.head_dim, seeded_object(header, "SKETCH", layer.head_dim));
    }
    layer.key_tables = read_side("key", key_tables, key_bits, true);
    layer.value_tables = read_side("value", value_tables, value_bits, false);
    out.layers.push_back(std::move(layer));
  }
  out.unknown = header.unknown();
  return out;
}

}  // namespace tq
