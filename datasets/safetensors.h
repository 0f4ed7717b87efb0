#pragma once

#include <cstddef>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "datasets/mapped_file.h"

// The safetensors format: eight bytes of length, little-endian, a JSON header of that length, the tensors'
// bytes. Files come from other people, so that everything is checked before it is used: the header's length,
// the JSON's size, depth and keys (datasets/json_strict.h), dtypes, shapes whose size overflows, offsets
// outside the data, and that the tensors cover the data without gap or overlap.
namespace tq {

struct SafetensorsTensor {
  std::string where;  // "FILE: NAME", for messages
  std::string dtype;  // "F32", "BF16", ...
  std::vector<std::size_t> shape;
  std::string_view bytes;  // of any alignment; the shape's elements of the dtype, row-major, little-endian

  std::size_t elements() const;
  // Throws InputError unless the dtype is F32, F16 or BF16.
  void check_float_dtype() const;
  // Elements [begin, begin + count) as float32, of a tensor that check_float_dtype() lets pass.
  void read(std::size_t begin, std::size_t count, float* out) const;
};

struct SafetensorsContent {
  std::map<std::string, SafetensorsTensor> tensors;
  std::map<std::string, std::string> metadata;
};

// `path` begins the messages of the InputErrors. The tensors point into `bytes`.
SafetensorsContent parse_safetensors(std::string_view bytes, const std::string& path);

// A file whose tensors are read where they lie.
class SafetensorsFile {
 public:
  explicit SafetensorsFile(const std::string& path)
      : file_(path), content_(parse_safetensors(file_.bytes(), path)) {}

  const std::map<std::string, SafetensorsTensor>& tensors() const { return content_.tensors; }

 private:
  MappedFile file_;
  SafetensorsContent content_;
};

}  // namespace tq
