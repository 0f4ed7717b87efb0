#include "datasets/safetensors.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>
#include <cstring>
#include <utility>

#include "core/error.h"
#include "core/half.h"
#include "datasets/json_strict.h"

namespace tq {
namespace {

static_assert(std::endian::native == std::endian::little);  // elements are read as they lie in the file

constexpr std::size_t kMostRank = 8;
constexpr std::size_t kMostTensors = 65536;

std::uint64_t header_length(std::string_view bytes) {
  std::uint64_t length = 0;
  std::memcpy(&length, bytes.data(), sizeof length);
  return length;
}

JsonDocument parse_header(std::string_view bytes, const std::string& path) {
  if (bytes.size() < 8)
    throw InputError("{}: {} bytes are too few for a safetensors file", path, bytes.size());
  const std::uint64_t length = header_length(bytes);
  if (length > bytes.size() - 8) {
    throw InputError("{}: the header claims {} bytes in a file of {}; the file is damaged or cut short", path,
                     length, bytes.size());
  }
  return JsonDocument(bytes.substr(8, static_cast<std::size_t>(length)), path);
}

std::size_t element_bytes(const JsonNode& dtype) {
  static const std::map<std::string, std::size_t> kBytes{
      {"BOOL", 1}, {"U8", 1},  {"I8", 1},  {"F8_E5M2", 1}, {"F8_E4M3", 1}, {"I16", 2}, {"U16", 2}, {"F16", 2},
      {"BF16", 2}, {"I32", 4}, {"U32", 4}, {"F32", 4},     {"F64", 8},     {"I64", 8}, {"U64", 8}};
  const auto found = kBytes.find(dtype.text());
  if (found == kBytes.end()) throw InputError("{}: not a safetensors dtype", dtype.where());
  return found->second;
}

SafetensorsTensor read_tensor(const JsonNode& node, std::string_view data) {
  std::vector<std::string> surplus;
  node.collect_unknown({"dtype", "shape", "data_offsets"}, surplus);
  if (!surplus.empty()) throw InputError("{}: {} is not a field of a tensor", node.where(), surplus.front());
  SafetensorsTensor tensor;
  tensor.where = node.where();
  std::size_t size = element_bytes(node.at("dtype"));
  tensor.dtype = node.at("dtype").text();
  for (const JsonNode& extent : node.at("shape").items(kMostRank)) {
    tensor.shape.push_back(static_cast<std::size_t>(extent.integer(0, std::int64_t{1} << 40)));
    if (__builtin_mul_overflow(size, tensor.shape.back(), &size)) {
      throw InputError("{}: the shape is larger than memory", node.where());
    }
  }
  const std::vector<JsonNode> offsets = node.at("data_offsets").items(2);
  if (offsets.size() != 2)
    throw InputError("{}: data_offsets has {} entries, not 2", node.where(), offsets.size());
  const auto limit = static_cast<std::int64_t>(data.size());
  const auto begin = static_cast<std::size_t>(offsets[0].integer(0, limit));
  const auto end = static_cast<std::size_t>(offsets[1].integer(0, limit));
  if (end < begin || end - begin != size) {
    throw InputError("{}: data_offsets {} to {}, the shape takes {} bytes", node.where(), begin, end, size);
  }
  tensor.bytes = data.substr(begin, size);
  return tensor;
}

void check_cover(const SafetensorsContent& content, std::string_view data, const std::string& path) {
  std::vector<const SafetensorsTensor*> by_offset;
  for (const auto& [name, tensor] : content.tensors) {
    if (!tensor.bytes.empty()) by_offset.push_back(&tensor);
  }
  std::sort(by_offset.begin(), by_offset.end(), [](const SafetensorsTensor* a, const SafetensorsTensor* b) {
    return a->bytes.data() < b->bytes.data();
  });
  std::size_t covered = 0;
  for (const SafetensorsTensor* tensor : by_offset) {
    const auto begin = static_cast<std::size_t>(tensor->bytes.data() - data.data());
    if (begin != covered) {
      throw InputError("{}: {} at byte {} of the data", tensor->where,
                       begin < covered ? "overlaps another tensor" : "leaves a gap before it", begin);
    }
    covered = begin + tensor->bytes.size();
  }
  if (covered != data.size()) {
    throw InputError("{}: {} bytes of data, the tensors cover {}", path, data.size(), covered);
  }
}

}  // namespace

std::size_t SafetensorsTensor::elements() const {
  std::size_t count = 1;
  for (const std::size_t extent : shape) count *= extent;
  return count;
}

void SafetensorsTensor::check_float_dtype() const {
  if (dtype != "F32" && dtype != "F16" && dtype != "BF16") {
    throw InputError("{}: dtype {}; F32, F16 or BF16 is wanted", where, dtype);
  }
}

void SafetensorsTensor::read(std::size_t begin, std::size_t count, float* out) const {
  if (dtype == "F32") {
    std::memcpy(out, bytes.data() + 4 * begin, 4 * count);
    return;
  }
  const bool half = dtype == "F16";
  std::array<std::uint16_t, 1024> piece;  // aligned, unlike the file's
  for (std::size_t done = 0; done < count; done += piece.size()) {
    const std::size_t rows = std::min(piece.size(), count - done);
    std::memcpy(piece.data(), bytes.data() + 2 * (begin + done), 2 * rows);
    if (half) {
      half_to_float(piece.data(), out + done, rows);
    } else {
      bfloat16_to_float(piece.data(), out + done, rows);
    }
  }
}

SafetensorsContent parse_safetensors(std::string_view bytes, const std::string& path) {
  const JsonDocument header = parse_header(bytes, path);
  const std::string_view data = bytes.substr(8 + static_cast<std::size_t>(header_length(bytes)));
  SafetensorsContent content;
  for (const auto& [name, node] : header.root().members(kMostTensors)) {
    if (name == "__metadata__") {
      for (const auto& [key, value] : node.members(kMostTensors)) content.metadata.emplace(key, value.text());
    } else {
      content.tensors.emplace(name, read_tensor(node, data));
    }
  }
  check_cover(content, data, path);
  return content;
}

}  // namespace tq
