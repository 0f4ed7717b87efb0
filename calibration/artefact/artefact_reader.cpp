#include <cmath>
#include <optional>
#include <set>

#include "calibration/artefact/artefact.h"
#include "calibration/artefact/artefact_layout.h"
#include "calibration/artefact/digest.h"
#include "calibration/artefact/export_formats.h"
#include "core/error.h"
#include "datasets/input_file.h"
#include "datasets/input_tree.h"

namespace tq {
namespace {

using hdf5::InputDataset;
using hdf5::InputGroup;
using hdf5::InputObject;

constexpr std::size_t kMaxTableValues = std::size_t{1} << 21;   // 4,096 heads of 8 bits and more
constexpr std::size_t kMaxMatrixValues = std::size_t{1} << 20;  // d = 1024

std::string list_names(const std::set<std::string>& names) {
  return names.empty() ? "nothing" : fmt::format("{}", fmt::join(names, ", "));
}

// Every child is one of `known`, and none of them is missing.
void require_children(const InputGroup& group, const std::set<std::string>& known) {
  std::set<std::string> found;
  for (const std::string& name : group.child_names(kMaxLayers + 1)) {
    if (!known.contains(name)) {
      throw InputError("{}: '{}' is not part of the format; {} is", group.where(), printable(name),
                       list_names(known));
    }
    found.insert(name);
  }
  for (const std::string& name : known) {
    if (!found.contains(name)) throw InputError("{}: '{}' is missing", group.where(), name);
  }
}

// No attribute beyond `known`; the readers below find those that are missing. By count, because HDF5 1.10
// crashes while it lists the names of damaged attributes.
void require_attributes(const InputObject& object, const std::set<std::string>& known) {
  std::size_t present = 0;
  for (const std::string& name : known) present += object.has_attribute(name) ? 1 : 0;
  const std::size_t all = object.attribute_count();
  if (all != present) {
    throw InputError("{}: has {} attributes that are not part of the format; {} are", object.where(),
                     all - present, list_names(known));
  }
}

int read_int(const InputObject& object, const std::string& name, int lowest, int highest) {
  const std::int64_t value = object.int64_attribute(name);
  if (value < lowest || value > highest) {
    throw InputError("{}: attribute '{}' is {}; {} to {} is wanted", object.where(), name, value, lowest,
                     highest);
  }
  return static_cast<int>(value);
}

template <typename Enum>
Enum read_enum(const InputObject& object, const std::string& name) {
  const std::string text = object.string_attribute(name);
  try {
    return parse_choice<Enum>(name, printable(text));
  } catch (const UsageError& error) {
    throw InputError("{}: {}", object.where(), error.what());
  }
}

// The float64 values of `name`, which must round to the float32 values beside them.
hdf5::Array<double> read_numbers(const InputGroup& group, const std::string& name,
                                 const hdf5::Extents& expected) {
  const auto single = group.array<float>(name, expected, kMaxTableValues);
  auto exact = group.array<double>(name + "_f64", single.extents, kMaxTableValues);
  for (std::size_t i = 0; i < exact.values.size(); ++i) {
    if (!std::isfinite(single.values[i]) || !std::isfinite(exact.values[i])) {
      throw InputError("{}: {}: element {} is not finite", group.where(), name, i);
    }
    if (static_cast<float>(exact.values[i]) != single.values[i]) {
      throw InputError(
          "{}: {}: element {} is {} as float32 and {} as float64, which rounds to another float32",
          group.where(), name, i, single.values[i], exact.values[i]);
    }
  }
  return exact;
}

// One table, or one a KV head.
std::vector<Codebook> read_codebooks(const InputGroup& group, int bits, int num_kv_heads) {
  const std::size_t size = std::size_t{1} << bits;
  const auto heads = static_cast<std::size_t>(num_kv_heads);
  const bool per_head = group.dataset("centroids", 4 * kMaxTableValues).info().extents.size() == 2;
  const auto expected = [&](std::size_t width) {
    return per_head ? hdf5::Extents{heads, width} : hdf5::Extents{width};
  };
  const std::vector<double> centroids = read_numbers(group, "centroids", expected(size)).values;
  const std::vector<double> boundaries = read_numbers(group, "boundaries", expected(size + 1)).values;
  const auto row = [](const std::vector<double>& all, std::size_t index, std::size_t width) {
    const auto begin = all.begin() + static_cast<std::ptrdiff_t>(index * width);
    return std::vector<double>(begin, begin + static_cast<std::ptrdiff_t>(width));
  };
  std::vector<Codebook> codebooks;
  for (std::size_t i = 0; i < (per_head ? heads : 1); ++i) {
    codebooks.push_back({bits, row(centroids, i, size), row(boundaries, i, size + 1)});
  }
  return codebooks;
}

void read_key(const InputGroup& group, LayerArtefact& layer) {
  require_children(
      group, {"centroids", "centroids_f64", "boundaries", "boundaries_f64", "qjl_scale", "qjl_scale_f64"});
  layer.key.mode = read_enum<KeyMode>(group, "mode");
  layer.key.bits = read_int(group, "bits", layer.key.mode == KeyMode::prod ? 2 : 1, 8);
  if (layer.key.mode == KeyMode::prod) {
    require_attributes(group, {"mode", "bits", "sketch"});
    layer.key.sketch = read_enum<SketchKind>(group, "sketch");
  } else {
    require_attributes(group, {"mode", "bits", "scale"});
    layer.key.scale = read_enum<ScaleRule>(group, "scale");
  }
  std::vector<Codebook> codebooks = read_codebooks(group, layer.key.table_bits(), layer.num_kv_heads);
  const std::vector<double> scales = read_numbers(group, "qjl_scale", {codebooks.size()}).values;
  for (const char* name : {"qjl_scale", "qjl_scale_f64"}) {
    const InputDataset dataset = group.dataset(name, 8 * kMaxTableValues);
    require_attributes(dataset, {"convention"});
    if (dataset.string_attribute("convention") != "alpha") {
      throw InputError("{}: attribute 'convention' must be 'alpha', the bare coefficient", dataset.where());
    }
  }
  for (std::size_t i = 0; i < codebooks.size(); ++i) {
    layer.key_tables.push_back({std::move(codebooks[i]), scales[i]});
  }
}

void read_value(const InputGroup& group, LayerArtefact& layer) {
  layer.value.mode = read_enum<ValueMode>(group, "mode");
  layer.value.bits = read_int(group, "bits", 1, 8);
  if (layer.value.mode == ValueMode::group) {
    require_children(group, {});
    require_attributes(group, {"mode", "bits", "group_size"});
    layer.value.group_size = read_int(group, "group_size", 1, 1024);
    return;
  }
  require_children(group, {"centroids", "centroids_f64", "boundaries", "boundaries_f64"});
  require_attributes(group, {"mode", "bits", "scale"});
  layer.value.scale = read_enum<ScaleRule>(group, "scale");
  layer.value_tables = read_codebooks(group, layer.value.bits, layer.num_kv_heads);
}

std::optional<double> read_score(double stored, const InputGroup& group) {
  if (std::isinf(stored)) throw InputError("{}: a score is infinite", group.where());
  return std::isnan(stored) ? std::nullopt : std::optional(stored);
}

TableMetrics read_metrics(const double* scores, const InputGroup& group) {
  const auto relative_mse = read_score(scores[0], group), cosine = read_score(scores[1], group);
  if (!relative_mse || !cosine) throw InputError("{}: relative_mse or cosine is not a number", group.where());
  return {.relative_mse = *relative_mse,
          .cosine = *cosine,
          .softmax_kl = read_score(scores[2], group),
          .top1_agreement = read_score(scores[3], group),
          .output_error = read_score(scores[4], group)};
}

GateRecord read_gate(const InputGroup& group) {
  require_attributes(group, {"kept", "reason"});
  GateRecord gate;
  gate.kept = read_int(group, "kept", 0, static_cast<int>(kMaxCandidates) - 1);
  gate.reason = group.string_attribute("reason");
  if (group.child_names().empty()) return gate;
  require_children(group, {"scores"});
  const auto scores = group.array<double>("scores", {hdf5::kAnyExtent, kScoreParts, kScoreMetrics},
                                          kMaxCandidates * kScoreParts * kScoreMetrics);
  const InputDataset dataset = group.dataset("scores", 8 * kMaxTableValues);
  std::set<std::string> attributes{"parts", "metrics"};
  for (std::size_t i = 0; i < scores.extents[0]; ++i) {
    const double* own = scores.values.data() + i * kScoreParts * kScoreMetrics;
    attributes.insert(candidate_name(i));
    gate.candidates.push_back({.name = dataset.string_attribute(candidate_name(i)),
                               .fit = read_metrics(own, group),
                               .held_out = read_metrics(own + kScoreMetrics, group)});
  }
  require_attributes(dataset, attributes);
  if (dataset.string_attribute("parts") != kScorePartNames ||
      dataset.string_attribute("metrics") != kScoreMetricNames) {
    throw InputError("{}: attributes 'parts' and 'metrics' must be '{}' and '{}'", dataset.where(),
                     kScorePartNames, kScoreMetricNames);
  }
  return gate;
}

std::vector<float> read_matrix(const InputGroup& group, std::size_t d) {
  auto matrix = group.array<float>("matrix", {d, d}, kMaxMatrixValues).values;
  for (std::size_t i = 0; i < matrix.size(); ++i) {
    if (!std::isfinite(matrix[i])) throw InputError("{}: matrix: element {} is not finite", group.where(), i);
  }
  return matrix;
}

std::uint64_t read_seed(const InputGroup& group) {
  const std::string text = group.string_attribute("seed");
  const auto seed = parse_integer<std::uint64_t>(text);
  if (!seed)
    throw InputError("{}: attribute 'seed' must be an integer from 0 to 2^64 - 1 as text", group.where());
  return *seed;
}

// A Rotation or Sketch. `rht` is the kind that is stored as signs and a permutation.
template <typename ObjectType, typename Kind>
ObjectType read_object(const InputGroup& group, int head_dim, Kind rht) {
  require_attributes(group, {"kind", "seed"});
  const auto kind = read_enum<Kind>(group, "kind");
  const std::uint64_t seed = read_seed(group);
  const auto d = static_cast<std::size_t>(head_dim);
  const bool is_rht = kind == rht;
  require_children(
      group, is_rht ? std::set<std::string>{"sign_bits", "permutation"} : std::set<std::string>{"matrix"});
  std::vector<float> values;
  std::vector<std::uint16_t> permutation;
  if (is_rht) {
    const auto bytes = group.array<std::uint8_t>("sign_bits", {d / 8}, d).values;
    for (std::size_t i = 0; i < d; ++i) values.push_back((bytes[i / 8] >> (i % 8) & 1) != 0 ? -1.0f : 1.0f);
    permutation = group.array<std::uint16_t>("permutation", {d}, d).values;
  } else {
    values = read_matrix(group, d);
  }
  try {
    return is_rht ? ObjectType::from_signs(std::move(values), std::move(permutation), seed)
                  : ObjectType::from_matrix(std::move(values), seed);
  } catch (const InputError& error) {
    throw InputError("{}: {}", group.where(), error.what());
  }
}

template <typename ObjectType, typename Kind>
std::map<int, ObjectType> read_objects(const InputGroup& root, const std::string& name, Kind rht) {
  const InputGroup group = root.group(name);
  std::map<int, ObjectType> objects;
  for (const std::string& child : group.child_names(kMaxLayers)) {
    const int head_dim = parse_integer<int>(child).value_or(0);
    if (std::to_string(head_dim) != child || head_dim < 16 || head_dim > 1024 || head_dim % 8 != 0) {
      throw InputError("{}: '{}' is not a head dimension, a multiple of 8 from 16 to 1024", group.where(),
                       printable(child));
    }
    objects.emplace(head_dim, read_object<ObjectType>(group.group(child), head_dim, rht));
  }
  return objects;
}

Provenance read_provenance(const InputGroup& root) {
  const InputGroup group = root.group("provenance");
  require_children(group, {});
  require_attributes(group, {"tool_version", "command_line", "utc_time", "capture_name", "capture_sha256",
                             "model", "fit_tokens", "held_out_tokens"});
  return {.tool_version = group.string_attribute("tool_version"),
          .command_line = group.string_attribute("command_line"),
          .utc_time = group.string_attribute("utc_time"),
          .capture_name = group.string_attribute("capture_name"),
          .capture_sha256 = group.string_attribute("capture_sha256"),
          .model = group.string_attribute("model"),
          .fit_tokens = group.int64_attribute("fit_tokens"),
          .held_out_tokens = group.int64_attribute("held_out_tokens")};
}

LayerArtefact read_layer(const InputGroup& group) {
  require_children(group, {"key", "value", "metrics"});
  require_attributes(group, {"head_dim", "num_kv_heads"});
  LayerArtefact layer;
  layer.head_dim = read_int(group, "head_dim", 16, 1024);
  layer.num_kv_heads = read_int(group, "num_kv_heads", 1, kMaxHeads);
  read_key(group.group("key"), layer);
  read_value(group.group("value"), layer);
  const InputGroup metrics = group.group("metrics");
  require_children(metrics, {"key", "value"});
  layer.key_gate = read_gate(metrics.group("key"));
  layer.value_gate = read_gate(metrics.group("value"));
  return layer;
}

}  // namespace

Artefact read_contents(const InputGroup& root, const std::string& path, std::string_view format,
                       std::initializer_list<std::string_view> more) {
  const std::string found = root.has_attribute("format") ? root.string_attribute("format") : "";
  if (found == kShardFormat && format == kArtefactFormat) {
    throw InputError("{}: is one shard of a calibration; tq merge makes an artefact of all of them",
                     root.where());
  }
  if (found != format) {
    throw InputError("{}: not {}: the attribute 'format' is not '{}'", root.where(),
                     format == kArtefactFormat ? "an artefact" : "a shard of a calibration", format);
  }
  const std::int64_t version = root.int64_attribute("format_version");
  if (version < 1 || version > kArtefactVersion) {
    throw InputError("{}: format_version {} is unknown; this program reads 1 to {}", root.where(), version,
                     kArtefactVersion);
  }
  std::set<std::string> attributes{"format",       "format_version", "codec",         "num_layers",
                                   "num_q_heads",  "key_basis",      "softmax_scale", "recent_window",
                                   "first_tokens", "sha256"};
  if (version >= 2) attributes.insert("evidence_sha256");
  attributes.insert(more.begin(), more.end());
  require_attributes(root, attributes);
  require_children(root, {"provenance", "rotations", "sketches", "layers"});

  Artefact artefact;
  artefact.num_q_heads = read_int(root, "num_q_heads", 1, kMaxHeads);
  artefact.key_basis = root.string_attribute("key_basis");
  if (root.has_attribute("softmax_scale")) {
    artefact.softmax_scale = root.double_attribute("softmax_scale");
  }
  if (root.has_attribute("recent_window") || root.has_attribute("first_tokens")) {
    artefact.policy = CachePolicy{.recent = read_int(root, "recent_window", 0, kMaxPolicyTokens),
                                  .sinks = read_int(root, "first_tokens", 0, kMaxPolicyTokens)};
  }
  artefact.provenance = read_provenance(root);
  artefact.rotations = read_objects<Rotation>(root, "rotations", RotationKind::rht);
  artefact.sketches = read_objects<Sketch>(root, "sketches", SketchKind::orthogonal);

  const auto count = static_cast<std::size_t>(read_int(root, "num_layers", 1, static_cast<int>(kMaxLayers)));
  const InputGroup layers = root.group("layers");
  std::set<std::string> names;
  for (std::size_t i = 0; i < count; ++i) names.insert(layer_name(i));
  require_children(layers, names);
  for (const std::string& name : names) artefact.layers.push_back(read_layer(layers.group(name)));

  validate(artefact, path);
  if (root.string_attribute("codec") != describe_codec(artefact)) {
    throw InputError("{}: attribute 'codec' must be '{}'", root.where(), describe_codec(artefact));
  }
  const auto require_digest = [&](const char* name, const std::string& digest) {
    if (root.string_attribute(name) == digest) return;
    throw InputError("{}: the content does not have the digest in '{}'; the file was edited or damaged",
                     root.where(), name);
  };
  require_digest("sha256", artefact_digest(artefact));
  if (version >= 2) require_digest("evidence_sha256", evidence_digest(artefact));
  return artefact;
}

Artefact read_artefact(const std::string& path, Trust trust) {
  return read_contents(hdf5::open_input(path, trust), path, kArtefactFormat);
}

}  // namespace tq
