// The other side of test_logits.py.
//   logits_program MODEL TOKENS CACHE   reads a file of little-endian uint32 tokens, with a cache of float32
//   or
//                                       binary16, and writes the logits to stdout: tokens x vocab_size
//                                       float32

#include <fmt/format.h>

#include <cstdio>
#include <cstring>
#include <string>

#include "core/error.h"
#include "datasets/input_file.h"
#include "experiments/language_model/language_model.h"

int main(int argc, char** argv) try {
  if (argc != 4) {
    fmt::print(stderr, "usage: logits_program MODEL TOKENS float32|binary16\n");
    return 2;
  }
  const tq::LanguageModel model(argv[1]);
  const std::string bytes = tq::read_input_file(argv[2], 1 << 20);
  std::vector<std::uint32_t> tokens(bytes.size() / 4);
  std::memcpy(tokens.data(), bytes.data(), 4 * tokens.size());
  const auto cache = std::string(argv[3]) == "float32"
                         ? tq::float32_cache(model.config())
                         : tq::host_cache(model.config(), tq::binary16_layers(model.config()), {});
  const std::vector<float> states = model.read(tokens, *cache, [] {});
  std::vector<float> logits(tokens.size() * static_cast<std::size_t>(model.config().vocab_size));
  model.logits(states.data(), tokens.size(), logits.data());
  return std::fwrite(logits.data(), sizeof(float), logits.size(), stdout) == logits.size() ? 0 : 4;
} catch (const tq::Error& error) {
  fmt::print(stderr, "{}\n", error.what());
  return static_cast<int>(error.exit_code());
}
