#pragma once

#include <initializer_list>
#include <map>
#include <string>
#include <vector>

#include "datasets/safetensors.h"

namespace tq {

// The tensors of a model's folder, by name: of model.safetensors, or of the files that
// model.safetensors.index.json names. Nothing is read but the headers; each tensor can be taken once.
class ModelTensors {
 public:
  // Throws InputError where there is neither, for damaged files, and for names that stand in two files.
  explicit ModelTensors(const std::string& folder);

  // Throws InputError when it is missing, has another shape, or is not of dtype F32, F16 or BF16.
  SafetensorsTensor take(const std::string& name, std::initializer_list<int> shape);
  std::vector<float> take_vector(const std::string& name, int size);
  // Throws InputError that names a tensor which nobody took, so that no part of a model is left out
  // unnoticed.
  void check_all_taken();

 private:
  std::string folder_;
  std::vector<SafetensorsFile> files_;
  std::map<std::string, SafetensorsTensor> tensors_;
};

}  // namespace tq
