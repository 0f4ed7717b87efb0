#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "experiments/language_model/model_config.h"

namespace tq {

// Throws InputError unless the model's tokens are bytes: it has 256 of them, and its folder no tokenizer's
// files.
void require_byte_tokens(const std::string& model_folder, const ModelConfig& config);

// The tokens of a text, for such a model.
std::vector<std::uint32_t> read_byte_tokens(const std::string& model_folder, const ModelConfig& config,
                                            const std::string& text_path);

// A file of tokens, each a little-endian uint32. Throws InputError for a size that is no multiple of four and
// for tokens that the model does not have.
std::vector<std::uint32_t> read_token_file(const ModelConfig& config, const std::string& path);

}  // namespace tq
