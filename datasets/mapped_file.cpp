#include "datasets/mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <system_error>
#include <utility>

#include "core/error.h"
#include "datasets/input_file.h"

namespace tq {

MappedFile::MappedFile(const std::string& path) {
  const std::size_t size = size_of_regular_file(path);
  if (size == 0) return;  // which cannot be mapped
  const auto fail = [&] {
    throw InputError("{}: cannot be read: {}", path, std::generic_category().message(errno));
  };
  const int file = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (file < 0) fail();
  void* begin = mmap(nullptr, size, PROT_READ, MAP_PRIVATE, file, 0);
  const int error = errno;
  close(file);
  errno = error;
  if (begin == MAP_FAILED) fail();
  bytes_ = {static_cast<const char*>(begin), size};
}

MappedFile::MappedFile(MappedFile&& other) noexcept : bytes_(std::exchange(other.bytes_, {})) {}

MappedFile::~MappedFile() {
  if (!bytes_.empty()) munmap(const_cast<char*>(bytes_.data()), bytes_.size());
}

}  // namespace tq
