#include "experiments/language_model/language_model.h"

#include <cmath>

#include "core/error.h"
#include "datasets/json_strict.h"
#include "experiments/language_model/gate.h"
#include "experiments/language_model/product.h"
#include "experiments/language_model/rms_norm.h"
#include "experiments/language_model/rotary_embedding.h"

namespace tq {
namespace {

using boost::container::default_init;

template <typename Rows>
void add_to(Rows& x, const Rows& y) {
#pragma omp parallel for simd schedule(static)
  for (std::size_t i = 0; i < x.size(); ++i) x[i] += y[i];
}

}  // namespace

LanguageModel::LanguageModel(const std::string& folder)
    : config_(read_model_config(read_json(folder + "/config.json").root())), tensors_(folder) {
  embedding_ = tensors_.take("model.embed_tokens.weight", {config_.vocab_size, config_.hidden_size});
  for (int i = 0; i < config_.num_layers; ++i) layers_.push_back(take_layer(tensors_, i));
  final_norm_ = tensors_.take_vector("model.norm.weight", config_.hidden_size);
  head_ = config_.tied_embeddings
              ? embedding_
              : tensors_.take("lm_head.weight", {config_.vocab_size, config_.hidden_size});
  tensors_.check_all_taken();
}

LanguageModel::Linear LanguageModel::take_linear(ModelTensors& tensors, const std::string& name, int outputs,
                                                 int inputs, bool bias) {
  Linear linear{tensors.take(name + ".weight", {outputs, inputs}), {}};
  if (bias) linear.bias = tensors.take_vector(name + ".bias", outputs);
  return linear;
}

LanguageModel::Layer LanguageModel::take_layer(ModelTensors& tensors, int index) const {
  const std::string name = fmt::format("model.layers.{}.", index);
  const std::string attention = name + "self_attn.", feed_forward = name + "mlp.";
  const int hidden = config_.hidden_size, inner = config_.intermediate_size;
  const int q_width = config_.num_q_heads * config_.head_dim;
  const int kv_width = config_.num_kv_heads * config_.head_dim;
  Layer layer;
  layer.attention_norm = tensors.take_vector(name + "input_layernorm.weight", hidden);
  layer.q = take_linear(tensors, attention + "q_proj", q_width, hidden, config_.qkv_bias);
  layer.k = take_linear(tensors, attention + "k_proj", kv_width, hidden, config_.qkv_bias);
  layer.v = take_linear(tensors, attention + "v_proj", kv_width, hidden, config_.qkv_bias);
  layer.output = take_linear(tensors, attention + "o_proj", hidden, q_width, config_.output_bias);
  if (config_.qk_norm) {
    layer.q_norm = tensors.take_vector(attention + "q_norm.weight", config_.head_dim);
    layer.k_norm = tensors.take_vector(attention + "k_norm.weight", config_.head_dim);
  }
  layer.feed_forward_norm = tensors.take_vector(name + "post_attention_layernorm.weight", hidden);
  layer.gate = take_linear(tensors, feed_forward + "gate_proj", inner, hidden, config_.mlp_bias);
  layer.up = take_linear(tensors, feed_forward + "up_proj", inner, hidden, config_.mlp_bias);
  layer.down = take_linear(tensors, feed_forward + "down_proj", hidden, inner, config_.mlp_bias);
  return layer;
}

LanguageModel::Rows LanguageModel::Linear::operator()(const Rows& x, std::size_t rows) const {
  Rows out(rows * outputs(), default_init);
  multiply(x.data(), rows, weight, out.data());
  for (std::size_t i = 0; i < rows && !bias.empty(); ++i) {
    for (std::size_t j = 0; j < bias.size(); ++j) out[i * bias.size() + j] += bias[j];
  }
  return out;
}

LanguageModel::Rows LanguageModel::norm(const Rows& x, const std::vector<float>& weight) const {
  Rows out(x.size(), default_init);
  rms_norm(x.data(), x.size() / weight.size(), weight, config_.rms_norm_eps, out.data());
  return out;
}

LanguageModel::Rows LanguageModel::attend(int index, const Rows& x, std::size_t tokens,
                                          const RotaryEmbedding& rotary, AttentionCache& cache) const {
  const Layer& layer = layers_[static_cast<std::size_t>(index)];
  const Rows input = norm(x, layer.attention_norm);
  Rows q = layer.q(input, tokens), k = layer.k(input, tokens);
  const Rows v = layer.v(input, tokens);
  if (config_.qk_norm) {
    q = norm(q, layer.q_norm);
    k = norm(k, layer.k_norm);
  }
  rotary.apply(q.data(), static_cast<std::size_t>(config_.num_q_heads));
  rotary.apply(k.data(), static_cast<std::size_t>(config_.num_kv_heads));
  Rows mixed(q.size(), default_init);
  cache.append_and_attend(index, k.data(), v.data(), tokens, q.data(), mixed.data());
  return layer.output(mixed, tokens);
}

LanguageModel::Rows LanguageModel::feed_forward(const Layer& layer, const Rows& x, std::size_t tokens) const {
  const Rows input = norm(x, layer.feed_forward_norm);
  Rows inner = layer.gate(input, tokens);
  const Rows up = layer.up(input, tokens);
  gate(inner.data(), up.data(), inner.size());
  return layer.down(inner, tokens);
}

std::vector<float> LanguageModel::read(std::span<const std::uint32_t> tokens, AttentionCache& cache,
                                       const std::function<void()>& layer_done) const {
  const auto hidden = static_cast<std::size_t>(config_.hidden_size);
  const RotaryEmbedding rotary(config_.head_dim, config_.rope_theta, tokens.size());
  Rows x(tokens.size() * hidden, default_init);
  for (std::size_t t = 0; t < tokens.size(); ++t) embedding_.read(tokens[t] * hidden, hidden, &x[t * hidden]);
  cache.clear();
  for (int index = 0; index < config_.num_layers; ++index) {
    add_to(x, attend(index, x, tokens.size(), rotary, cache));
    add_to(x, feed_forward(layers_[static_cast<std::size_t>(index)], x, tokens.size()));
    layer_done();
  }
  std::vector<float> states(x.size());
  rms_norm(x.data(), tokens.size(), final_norm_, config_.rms_norm_eps, states.data());
  return states;
}

void LanguageModel::logits(const float* states, std::size_t rows, float* out) const {
  multiply(states, rows, head_, out);
}

}  // namespace tq
