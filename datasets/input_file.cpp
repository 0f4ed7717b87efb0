#include "datasets/input_file.h"

#include <algorithm>
#include <filesystem>
#include <fstream>

#include "core/error.h"
#include "datasets/hdf5.h"

namespace tq {

std::size_t size_of_regular_file(const std::string& path) {
  std::error_code error;
  const auto status = std::filesystem::status(path, error);
  if (!std::filesystem::exists(status)) throw InputError("{}: there is no such file", path);
  if (!std::filesystem::is_regular_file(status)) throw InputError("{}: not a regular file", path);
  const auto bytes = std::filesystem::file_size(path, error);
  if (error) throw InputError("{}: cannot be read: {}", path, error.message());
  return static_cast<std::size_t>(bytes);
}

namespace {

std::string read_bytes(const std::string& path, std::size_t bytes) {
  std::ifstream stream(path, std::ios::binary);
  if (!stream) throw InputError("{}: cannot be opened", path);
  std::string text(bytes, '\0');
  stream.read(text.data(), static_cast<std::streamsize>(bytes));
  if (!stream) throw InputError("{}: cannot be read to its end", path);
  return text;
}

}  // namespace

std::string read_input_file(const std::string& path, std::size_t limit) {
  const std::size_t bytes = size_of_regular_file(path);
  if (bytes > limit)
    throw InputError("{}: {} bytes; files of this format have {} at most", path, bytes, limit);
  return read_bytes(path, bytes);
}

std::string read_input_head(const std::string& path, std::size_t bytes) {
  return read_bytes(path, std::min(bytes, size_of_regular_file(path)));
}

std::string printable(std::string_view text) {
  constexpr std::size_t kLongest = 80;
  return hdf5::one_line(text.substr(0, kLongest)) + (text.size() > kLongest ? "..." : "");
}

}  // namespace tq
