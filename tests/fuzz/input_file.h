#pragma once

#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>

namespace tq::fuzz {

// An input as a file that readers open by its path: one file in memory (/dev/shm), written anew for every
// input. A memfd would do but for HDF5, which looks for the real path behind /proc/self/fd.
inline std::string file_of(const std::uint8_t* data, std::size_t size) {
  static char path[] = "/dev/shm/tq-fuzz-XXXXXX";
  static const int file = mkstemp(path);
  static const int registered = std::atexit([] { unlink(path); });
  if (file < 0 || registered != 0 || ftruncate(file, 0) != 0 ||
      pwrite(file, data, size, 0) != static_cast<ssize_t>(size)) {
    std::perror("the file of the input");
    std::abort();
  }
  return path;
}

}  // namespace tq::fuzz
