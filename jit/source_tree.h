#pragma once

#include <map>
#include <span>
#include <string>
#include <string_view>

#include "core/sha256.h"

namespace tq {

// A device source that the build put into the program; see embed_sources.cmake.
struct EmbeddedFile {
  std::string_view path;  // relative to the tree's root, with slashes
  std::string_view content;
};

// All device sources by relative path: what a kernel may #include, under exactly these names.
class SourceTree {
 public:
  explicit SourceTree(std::span<const EmbeddedFile> files);
  explicit SourceTree(std::map<std::string, std::string> files);
  // Every *.cuh, *.cu, *.h and *.hpp file below `folder`, hidden ones and links out of it left aside. Throws
  // InputError when there is none or one cannot be read.
  static SourceTree from_folder(const std::string& folder);

  const std::map<std::string, std::string>& files() const { return files_; }
  // Of all paths and contents.
  const Sha256::Digest& digest() const { return digest_; }

 private:
  std::map<std::string, std::string> files_;
  Sha256::Digest digest_;
};

}  // namespace tq
