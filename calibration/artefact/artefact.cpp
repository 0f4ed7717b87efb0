#include "calibration/artefact/artefact.h"

#include <cmath>
#include <set>
#include <string_view>

#include "calibration/artefact/table_checks.h"
#include "core/error.h"

namespace tq {
namespace {

// An option's range error, said of a file.
template <typename Config>
void validate_config(const Config& config, int head_dim, const std::string& where) {
  try {
    validate(config, head_dim);
  } catch (const UsageError& error) {
    throw InputError("{}: {}", where, error.what());
  }
}

void validate_table_count(std::size_t count, int num_kv_heads, const std::string& where) {
  if (count != 1 && count != static_cast<std::size_t>(num_kv_heads)) {
    throw InputError("{}: {} tables; one for the layer or one for each of {} KV heads are wanted", where,
                     count, num_kv_heads);
  }
}

void validate_text(std::string_view text, std::string_view name, const std::string& where) {
  constexpr std::size_t kLongest = 16384;  // an HDF5 attribute holds less than 64 KiB
  if (text.size() > kLongest)
    throw InputError("{}: {} has {} bytes; {} are the most", where, name, text.size(), kLongest);
  if (text.find('\0') != text.npos) throw InputError("{}: {} contains a zero byte", where, name);
}

void validate_metrics(const TableMetrics& metrics, const std::string& where) {
  const double nothing = 0;
  for (const double value :
       {metrics.relative_mse, metrics.cosine, metrics.softmax_kl.value_or(nothing),
        metrics.top1_agreement.value_or(nothing), metrics.output_error.value_or(nothing)}) {
    if (!std::isfinite(value)) throw InputError("{}: a metric is not finite", where);
  }
}

void validate_gate(const GateRecord& gate, const std::string& where) {
  if (gate.candidates.size() > kMaxCandidates) {
    throw InputError("{}: {} candidates; {} are the most", where, gate.candidates.size(), kMaxCandidates);
  }
  const auto count = static_cast<int>(gate.candidates.size());
  if (gate.kept < 0 || (gate.kept != 0 && gate.kept >= count)) {
    throw InputError("{}: candidate {} was kept, of {}", where, gate.kept, count);
  }
  validate_text(gate.reason, "reason", where);
  for (const Candidate& candidate : gate.candidates) {
    validate_text(candidate.name, "a candidate's name", where);
    validate_metrics(candidate.fit, where);
    validate_metrics(candidate.held_out, where);
  }
}

void validate_layer(const LayerArtefact& layer, int num_q_heads, const std::string& where) {
  validate_config(layer.key, layer.head_dim, where + "/key");
  validate_config(layer.value, layer.head_dim, where + "/value");
  if (layer.num_kv_heads < 1 || num_q_heads % layer.num_kv_heads != 0) {
    throw InputError("{}: {} KV heads do not divide {} query heads", where, layer.num_kv_heads, num_q_heads);
  }

  const std::string key_where = where + "/key";
  validate_table_count(layer.key_tables.size(), layer.num_kv_heads, key_where);
  for (const KeyTables& tables : layer.key_tables) {
    validate_unit_table(tables.codebook, layer.key.table_bits(), key_where);
    validate(tables, key_where);
    if (layer.key.mode == KeyMode::mse && tables.qjl_scale != 0) {
      throw InputError("{}: qjl_scale is {} although mse keys have no sign bit", key_where, tables.qjl_scale);
    }
  }

  const std::string value_where = where + "/value";
  if (layer.value.mode == ValueMode::group) {
    if (!layer.value_tables.empty() || !layer.value_gate.candidates.empty()) {
      throw InputError("{}: group values have no table, this layer carries one", value_where);
    }
  } else {
    validate_table_count(layer.value_tables.size(), layer.num_kv_heads, value_where);
    for (const Codebook& codebook : layer.value_tables) {
      validate_unit_table(codebook, layer.value.bits, value_where);
    }
  }
  validate_gate(layer.key_gate, key_where);
  validate_gate(layer.value_gate, value_where);
}

void validate_policy(const CachePolicy& policy, const std::string& where) {
  for (const auto& [name, tokens] :
       {std::pair<std::string_view, int>{"recent_window", policy.recent}, {"first_tokens", policy.sinks}}) {
    if (tokens < 0 || tokens > kMaxPolicyTokens) {
      throw InputError("{}: {} is {}; 0 to {} tokens are wanted", where, name, tokens, kMaxPolicyTokens);
    }
  }
  if (policy.flush_block != 1) throw InputError("{}: flush_block is {}, not 1", where, policy.flush_block);
}

}  // namespace

void validate(const Artefact& artefact, const std::string& where) {
  if (artefact.num_q_heads < 1 || artefact.num_q_heads > kMaxHeads) {
    throw InputError("{}: num_q_heads is {}; 1 to {} are wanted", where, artefact.num_q_heads, kMaxHeads);
  }
  if (artefact.key_basis != "post_rope" && artefact.key_basis != "pre_rope") {
    throw InputError("{}: key_basis is neither post_rope nor pre_rope", where);
  }
  if (artefact.softmax_scale && !(std::isfinite(*artefact.softmax_scale) && *artefact.softmax_scale > 0)) {
    throw InputError("{}: softmax_scale {} is not a positive number", where, *artefact.softmax_scale);
  }
  if (artefact.policy) validate_policy(*artefact.policy, where);
  const Provenance& provenance = artefact.provenance;
  for (const auto& [name, text] :
       {std::pair<std::string_view, std::string_view>{"tool_version", provenance.tool_version},
        {"command_line", provenance.command_line},
        {"utc_time", provenance.utc_time},
        {"capture_name", provenance.capture_name},
        {"capture_sha256", provenance.capture_sha256},
        {"model", provenance.model}}) {
    validate_text(text, name, where);
  }
  if (provenance.fit_tokens < 0 || provenance.held_out_tokens < 0) {
    throw InputError("{}: a negative count of tokens", where);
  }

  if (artefact.layers.empty() || artefact.layers.size() > kMaxLayers) {
    throw InputError("{}: {} layers; 1 to {} are wanted", where, artefact.layers.size(), kMaxLayers);
  }
  std::set<int> rotated, sketched;
  for (std::size_t i = 0; i < artefact.layers.size(); ++i) {
    const LayerArtefact& layer = artefact.layers[i];
    const std::string place = fmt::format("{}: /layers/{:03}", where, i);
    validate_layer(layer, artefact.num_q_heads, place);
    rotated.insert(layer.head_dim);
    if (layer.key.mode != KeyMode::prod) continue;
    sketched.insert(layer.head_dim);
    const auto sketch = artefact.sketches.find(layer.head_dim);
    if (sketch != artefact.sketches.end() && sketch->second.kind() != layer.key.sketch) {
      throw InputError("{}: keys take a {} sketch, the one of head_dim {} is {}", place,
                       to_string(layer.key.sketch), layer.head_dim, to_string(sketch->second.kind()));
    }
  }

  const auto validate_objects = [&](const auto& objects, const std::set<int>& wanted, std::string_view name) {
    for (const int head_dim : wanted) {
      if (!objects.contains(head_dim))
        throw InputError("{}: the {} of head_dim {} is missing", where, name, head_dim);
    }
    for (const auto& [head_dim, object] : objects) {
      if (!wanted.contains(head_dim)) {
        throw InputError("{}: a {} of head_dim {}, which no layer uses", where, name, head_dim);
      }
      if (object.head_dim() != head_dim) {
        throw InputError("{}: the {} of head_dim {} is of {}", where, name, head_dim, object.head_dim());
      }
    }
  };
  validate_objects(artefact.rotations, rotated, "rotation");
  validate_objects(artefact.sketches, sketched, "sketch");
}

}  // namespace tq
