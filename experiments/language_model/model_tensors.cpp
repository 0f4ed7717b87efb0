#include "experiments/language_model/model_tensors.h"

#include <algorithm>
#include <filesystem>
#include <set>

#include "core/error.h"
#include "datasets/input_file.h"
#include "datasets/json_strict.h"

namespace tq {
namespace {

constexpr const char* kSingleFile = "model.safetensors";
constexpr const char* kIndexFile = "model.safetensors.index.json";
constexpr std::size_t kMostTensors = 65536;

bool exists(const std::string& path) {
  std::error_code error;
  return std::filesystem::exists(path, error);
}

std::set<std::string> indexed_files(const std::string& path) {
  const JsonDocument index = read_json(path);
  std::set<std::string> names;
  for (const auto& [tensor, file] : index.root().at("weight_map").members(kMostTensors)) {
    const std::string name = file.text();
    if (name.find('/') != name.npos || !name.ends_with(".safetensors")) {
      throw InputError("{}: '{}' is not the name of a safetensors file beside it", file.where(),
                       printable(name));
    }
    names.insert(name);
  }
  return names;
}

}  // namespace

ModelTensors::ModelTensors(const std::string& folder) : folder_(folder) {
  std::set<std::string> names{kSingleFile};
  if (!exists(folder + "/" + kSingleFile)) {
    if (!exists(folder + "/" + kIndexFile)) {
      throw InputError("{}: neither {} nor {} is there; other formats of weights are not read", folder,
                       kSingleFile, kIndexFile);
    }
    names = indexed_files(folder + "/" + kIndexFile);
  }
  for (const std::string& name : names) {
    files_.emplace_back(folder + "/" + name);
    for (const auto& [tensor_name, tensor] : files_.back().tensors()) {
      if (!tensors_.emplace(tensor_name, tensor).second) {
        throw InputError("{}: stands in another file of the model too", tensor.where);
      }
    }
  }
}

SafetensorsTensor ModelTensors::take(const std::string& name, std::initializer_list<int> shape) {
  const auto node = tensors_.extract(name);
  if (!node) throw InputError("{}: tensor '{}' is missing", folder_, name);
  SafetensorsTensor tensor = std::move(node.mapped());
  if (!std::equal(tensor.shape.begin(), tensor.shape.end(), shape.begin(), shape.end(),
                  [](std::size_t a, int b) { return a == static_cast<std::size_t>(b); })) {
    throw InputError("{}: shape ({}), by config.json it is ({})", tensor.where, fmt::join(tensor.shape, ", "),
                     fmt::join(shape, ", "));
  }
  tensor.check_float_dtype();
  return tensor;
}

std::vector<float> ModelTensors::take_vector(const std::string& name, int size) {
  const SafetensorsTensor tensor = take(name, {size});
  std::vector<float> values(tensor.elements());
  tensor.read(0, values.size(), values.data());
  return values;
}

void ModelTensors::check_all_taken() {
  if (!tensors_.empty()) {
    throw InputError("{}: by config.json the model has no such tensor", tensors_.begin()->second.where);
  }
}

}  // namespace tq
