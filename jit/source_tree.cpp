#include "jit/source_tree.h"

#include <array>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <utility>

#include "core/error.h"
#include "core/field_hash.h"

namespace tq {
namespace {

namespace fs = std::filesystem;

bool is_device_source(const fs::path& path) {
  const std::string ending = path.extension().string();
  return ending == ".cuh" || ending == ".cu" || ending == ".h" || ending == ".hpp";
}

std::string read_source(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  std::string content{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  if (!file.is_open() || file.bad()) throw InputError("{}: cannot be read", path.string());
  return content;
}

std::map<std::string, std::string> by_path(std::span<const EmbeddedFile> files) {
  std::map<std::string, std::string> result;
  for (const EmbeddedFile& file : files) result.emplace(file.path, file.content);
  return result;
}

Sha256::Digest digest_of(const std::map<std::string, std::string>& files) {
  FieldHash hash;
  for (const auto& [path, content] : files) {
    hash.text(path);
    hash.text(content);
  }
  return hash.finish();
}

}  // namespace

SourceTree::SourceTree(std::span<const EmbeddedFile> files) : SourceTree(by_path(files)) {}

SourceTree::SourceTree(std::map<std::string, std::string> files)
    : files_(std::move(files)), digest_(digest_of(files_)) {}

SourceTree SourceTree::from_folder(const std::string& folder) {
  std::map<std::string, std::string> files;
  try {
    for (fs::recursive_directory_iterator entry(folder), end; entry != end; ++entry) {
      if (entry->path().filename().string().starts_with('.')) {
        if (entry->is_directory()) entry.disable_recursion_pending();
      } else if (entry->is_regular_file() && is_device_source(entry->path())) {
        files.emplace(entry->path().lexically_relative(folder).generic_string(), read_source(entry->path()));
      }
    }
  } catch (const fs::filesystem_error& error) {
    throw InputError("{}: cannot be read: {}", folder, error.code().message());
  }
  if (files.empty()) throw InputError("{}: holds no device sources (*.cuh, *.h)", folder);
  return SourceTree(std::move(files));
}

}  // namespace tq
