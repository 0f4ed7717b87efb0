#include "experiments/language_model/model_config.h"

#include <cmath>

#include "core/error.h"
#include "datasets/input_file.h"

namespace tq {
namespace {

// Far beyond any model, and small enough that no size computed from them overflows.
constexpr int kMostUnits = 1 << 22;  // of vocabulary, widths and positions
constexpr int kMostLayers = 1000;
constexpr int kMostHeads = 4096;

std::optional<JsonNode> present(const JsonNode& node, std::string_view key) {
  auto value = node.find(key);
  return value && value->is_null() ? std::nullopt : value;
}

int integer(const JsonNode& root, std::string_view key, int most, std::optional<int> otherwise = {}) {
  const auto node = present(root, key);
  if (!node && otherwise) return *otherwise;
  return static_cast<int>((node ? *node : root.at(key)).integer(1, most));
}

bool flag(const JsonNode& root, std::string_view key) {
  const auto node = present(root, key);
  return node && node->boolean();
}

// Older files have rope_theta and rope_scaling side by side, newer ones rope_parameters with both.
double rope_theta(const JsonNode& root) {
  const auto parameters = present(root, "rope_parameters");
  for (const auto& node : {parameters, present(root, "rope_scaling")}) {
    if (!node) continue;
    for (const char* key : {"rope_type", "type"}) {
      const auto type = node->find(key);
      if (type && type->text() != "default") {
        throw InputError("{}: rotary embeddings of type '{}' are not supported, only 'default'",
                         type->where(), printable(type->text()));
      }
    }
  }
  const JsonNode& holder = parameters ? *parameters : root;
  for (const JsonNode& node : {holder, root}) {
    const auto partial = present(node, "partial_rotary_factor");
    if (partial && partial->number() != 1) {
      throw InputError("{}: rotary embeddings of a part of the head are not supported", partial->where());
    }
  }
  const auto theta = present(holder, "rope_theta");
  if (!theta) return 10000;
  if (!(theta->number() > 1)) throw InputError("{}: a number above 1 is wanted", theta->where());
  return theta->number();
}

void refuse_sliding_windows(const JsonNode& root, const std::string& family) {
  if (family == "qwen2" || family == "qwen3") {
    if (flag(root, "use_sliding_window")) {
      throw InputError("{}: sliding windows are not supported", root.at("use_sliding_window").where());
    }
  } else if (const auto window = present(root, "sliding_window")) {
    throw InputError("{}: sliding windows are not supported", window->where());
  }
  if (const auto types = present(root, "layer_types")) {
    for (const JsonNode& type : types->items(kMostLayers)) {
      if (type.text() != "full_attention") {
        throw InputError("{}: layers of type '{}' are not supported", type.where(), printable(type.text()));
      }
    }
  }
}

}  // namespace

ModelConfig read_model_config(const JsonNode& root) {
  ModelConfig config;
  const JsonNode family = root.at("model_type");
  config.family = family.text();
  if (config.family != "llama" && config.family != "qwen2" && config.family != "qwen3") {
    throw InputError("{}: models of type '{}' are not supported, only llama, qwen2 and qwen3", family.where(),
                     printable(config.family));
  }
  if (root.find("quantization_config")) {
    throw InputError("{}: quantised weights are not supported", root.at("quantization_config").where());
  }
  if (const auto activation = present(root, "hidden_act"); activation && activation->text() != "silu") {
    throw InputError("{}: activation '{}' is not supported, only 'silu'", activation->where(),
                     printable(activation->text()));
  }
  refuse_sliding_windows(root, config.family);

  config.vocab_size = integer(root, "vocab_size", kMostUnits);
  config.hidden_size = integer(root, "hidden_size", kMostUnits);
  config.intermediate_size = integer(root, "intermediate_size", kMostUnits);
  config.num_layers = integer(root, "num_hidden_layers", kMostLayers);
  config.num_q_heads = integer(root, "num_attention_heads", kMostHeads);
  config.num_kv_heads = integer(root, "num_key_value_heads", kMostHeads, config.num_q_heads);
  if (config.num_q_heads % config.num_kv_heads != 0) {
    throw InputError("{}: {} query heads cannot share {} KV heads", root.at("num_attention_heads").where(),
                     config.num_q_heads, config.num_kv_heads);
  }
  // Where it is not given: transformers' default of the family.
  const int derived = config.family == "qwen3" ? 128 : config.hidden_size / config.num_q_heads;
  config.head_dim = integer(root, "head_dim", 1024, derived);
  if (config.head_dim < 16 || config.head_dim > 1024 || config.head_dim % 8 != 0) {
    throw InputError("{}: head_dim is {}, must be a multiple of 8 from 16 to 1024", root.where(),
                     config.head_dim);
  }
  config.max_positions = integer(root, "max_position_embeddings", kMostUnits);
  config.rms_norm_eps = root.at("rms_norm_eps").number();
  if (!(config.rms_norm_eps >= 0))
    throw InputError("{}: a number from 0 is wanted", root.at("rms_norm_eps").where());
  config.rope_theta = rope_theta(root);
  config.tied_embeddings = flag(root, "tie_word_embeddings");
  const bool attention_bias = config.family != "qwen2" && flag(root, "attention_bias");
  config.qkv_bias = config.family == "qwen2" || attention_bias;
  config.output_bias = attention_bias;
  config.mlp_bias = config.family == "llama" && flag(root, "mlp_bias");
  config.qk_norm = config.family == "qwen3";
  return config;
}

}  // namespace tq
