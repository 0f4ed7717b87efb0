#pragma once

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>

namespace tq::fuzz {

// An input as a file that readers open by its path, without a disk: one anonymous file, written anew for
// every input.
inline std::string file_of(const std::uint8_t* data, std::size_t size) {
  static const int file = memfd_create("fuzz-input", MFD_CLOEXEC);
  if (file < 0 || ftruncate(file, 0) != 0 || pwrite(file, data, size, 0) != static_cast<ssize_t>(size)) {
    std::perror("the file of the input");
    std::abort();
  }
  return "/proc/self/fd/" + std::to_string(file);
}

}  // namespace tq::fuzz
