#pragma once

#include <boost/container/vector.hpp>

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "experiments/language_model/attention_cache.h"
#include "experiments/language_model/model_config.h"
#include "experiments/language_model/model_tensors.h"

namespace tq {

// A decoder-only model read from its Hugging Face folder: config.json and safetensors. Arithmetic is float32;
// weights stay in the file, memory-mapped, and are widened as they are used.
class LanguageModel {
 public:
  // Throws InputError for anything in the folder that is damaged, missing, or not built.
  explicit LanguageModel(const std::string& folder);

  const ModelConfig& config() const { return config_; }

  // Reads a sequence from its beginning. Clears the cache, and leaves the tokens in it. Returns tokens x
  // hidden_size: the states from which logits() predicts the token after each. `layer_done` is called after
  // every layer. Tokens must be below vocab_size.
  std::vector<float> read(std::span<const std::uint32_t> tokens, AttentionCache& cache,
                          const std::function<void()>& layer_done) const;
  // states: rows x hidden_size, of read(); out: rows x vocab_size.
  void logits(const float* states, std::size_t rows, float* out) const;

 private:
  // Rows between the parts of a layer. They are made without being cleared, since all of them is written.
  using Rows = boost::container::vector<float>;

  // out[i] = x[i] weight^T + bias.
  struct Linear {
    SafetensorsTensor weight;  // outputs x inputs
    std::vector<float> bias;   // outputs, or none

    std::size_t outputs() const { return weight.shape[0]; }
    Rows operator()(const Rows& x, std::size_t rows) const;
  };
  struct Layer {
    std::vector<float> attention_norm, feed_forward_norm;
    Linear q, k, v, output;
    std::vector<float> q_norm, k_norm;  // qwen3
    Linear gate, up, down;
  };

  static Linear take_linear(ModelTensors& tensors, const std::string& name, int outputs, int inputs,
                            bool bias);
  Layer take_layer(ModelTensors& tensors, int index) const;
  Rows norm(const Rows& x, const std::vector<float>& weight) const;
  // What the layer's two halves add to x, tokens x hidden_size.
  Rows attend(int index, const Rows& x, std::size_t tokens, const class RotaryEmbedding& rotary,
              AttentionCache& cache) const;
  Rows feed_forward(const Layer& layer, const Rows& x, std::size_t tokens) const;

  ModelConfig config_;
  ModelTensors tensors_;
  SafetensorsTensor embedding_;  // vocab_size x hidden_size
  SafetensorsTensor head_;       // vocab_size x hidden_size; the embedding where they are tied
  std::vector<float> final_norm_;
  std::vector<Layer> layers_;
};

}  // namespace tq
