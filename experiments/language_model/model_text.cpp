#include "experiments/language_model/model_text.h"

#include <bit>
#include <cstring>
#include <filesystem>

#include "core/error.h"
#include "datasets/input_file.h"

namespace tq {
namespace {

static_assert(std::endian::native == std::endian::little);

constexpr std::size_t kMostBytes = std::size_t{1} << 30;

bool has_tokenizer(const std::string& folder) {
  std::error_code error;
  for (const char* name : {"tokenizer.json", "tokenizer.model", "tokenizer_config.json", "vocab.json"}) {
    if (std::filesystem::exists(folder + "/" + name, error)) return true;
  }
  return false;
}

}  // namespace

void require_byte_tokens(const std::string& model_folder, const ModelConfig& config) {
  if (config.vocab_size == 256 && !has_tokenizer(model_folder)) return;
  throw InputError(
      "{}: the model has a tokenizer of its own; make tokens of the text with datasets/capture_hf.py "
      "--tokens-out "
      "FILE, and take those (tq ppl --tokens FILE; in a sweep, text = tokens:FILE)",
      model_folder);
}

std::vector<std::uint32_t> read_byte_tokens(const std::string& model_folder, const ModelConfig& config,
                                            const std::string& text_path) {
  require_byte_tokens(model_folder, config);
  std::vector<std::uint32_t> tokens;
  for (const char byte : read_input_file(text_path, kMostBytes))
    tokens.push_back(static_cast<unsigned char>(byte));
  return tokens;
}

std::vector<std::uint32_t> read_token_file(const ModelConfig& config, const std::string& path) {
  const std::string bytes = read_input_file(path, kMostBytes);
  if (bytes.size() % 4 != 0) {
    throw InputError("{}: {} bytes are no whole number of 32-bit tokens", path, bytes.size());
  }
  std::vector<std::uint32_t> tokens(bytes.size() / 4);
  if (!tokens.empty()) std::memcpy(tokens.data(), bytes.data(), bytes.size());
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    if (tokens[i] >= static_cast<std::uint32_t>(config.vocab_size)) {
      throw InputError("{}: token {} is {}, the model has {}; the file was made for another model", path, i,
                       tokens[i], config.vocab_size);
    }
  }
  return tokens;
}

}  // namespace tq
