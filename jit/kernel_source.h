#pragma once

#include <string>
#include <vector>

namespace tq {

// One kernel before it is compiled.
struct KernelSource {
  std::string label;                 // "encode_keys d128 mse4-nc f16": its name in errors, lists and logs
  std::string text;                  // the translation unit
  std::string name_expression;       // "tq::encode_keys<tq::Config<128, 4>>", with its namespaces
  std::vector<std::string> options;  // for NVRTC, beside those of compile_options(); one argument each
};

}  // namespace tq
