#pragma once

#include <optional>
#include <string>

#include "datasets/json_strict.h"

namespace tq {

// The shape of a decoder-only model, from the config.json of its Hugging Face folder: RMSNorm, rotary
// position embeddings, grouped-query attention and a SwiGLU feed-forward network. What the families differ
// in:
//   llama  a bias where attention_bias (q, k, v and o) or mlp_bias says so
//   qwen2  a bias of q, k and v
//   qwen3  RMSNorm of every head's q and k; a bias where attention_bias says so
struct ModelConfig {
  std::string family;
  int vocab_size = 0;
  int hidden_size = 0;
  int intermediate_size = 0;
  int num_layers = 0;
  int num_q_heads = 0;
  int num_kv_heads = 0;
  int head_dim = 0;
  int max_positions = 0;
  double rms_norm_eps = 0;
  double rope_theta = 0;
  bool tied_embeddings = false;
  bool qkv_bias = false, output_bias = false, mlp_bias = false;
  bool qk_norm = false;
};

// Throws InputError for an unknown family, for what changes the arithmetic and is not built (scaled or
// partial rotary embeddings, sliding windows, other activations), and for sizes that do not fit together.
ModelConfig read_model_config(const JsonNode& root);

}  // namespace tq
