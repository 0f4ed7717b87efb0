#pragma once

#include <string>
#include <string_view>

namespace tq {

// A regular file's bytes as they lie on disk, read-only, paged in as they are touched. The file must not be
// shortened while it is mapped.
class MappedFile {
 public:
  // Throws InputError when the file cannot be read or is not a regular file.
  explicit MappedFile(const std::string& path);
  ~MappedFile();
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&&) = delete;

  std::string_view bytes() const { return bytes_; }

 private:
  std::string_view bytes_;
};

}  // namespace tq
