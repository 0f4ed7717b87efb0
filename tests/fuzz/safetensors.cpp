#include "datasets/safetensors.h"

#include <vector>

#include "calibration/artefact/import_formats.h"
#include "core/error.h"

namespace {

// Every tensor of floats, as a model's weights are read.
void read_tensors(std::string_view bytes) {
  std::vector<float> values;
  for (const auto& [name, tensor] : tq::parse_safetensors(bytes, "input").tensors) {
    try {
      tensor.check_float_dtype();
    } catch (const tq::InputError&) {
      continue;
    }
    values.resize(tensor.elements());
    tensor.read(0, values.size(), values.data());
  }
}

}  // namespace

// A safetensors file: header and weights, then as tables that `tq import` reads.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  try {
    read_tensors(bytes);
    tq::read_safetensors(bytes, "input");
  } catch (const tq::InputError&) {
  }
  return 0;
}
