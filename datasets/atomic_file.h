#pragma once

#include <string>
#include <string_view>

namespace tq {

// A file that appears whole or not at all: written under a temporary name in the same directory, then fsync, rename,
// fsync of the directory. Destroyed before commit(), it removes the temporary. A killed process leaves its temporary;
// the next AtomicFile for the same target removes it (temporaries of live processes are left alone).
class AtomicFile {
 public:
  // Throws SystemError when the directory does not exist or cannot be written.
  explicit AtomicFile(std::string target);
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  // Where to write; the caller creates, fills and closes this file.
  const std::string& temporary() const { return temporary_; }
  // Throws SystemError (disk full, permission); the target is then as it was.
  void commit();

 private:
  std::string target_;
  std::string temporary_;
  bool committed_ = false;
};

// `text` to `target` through an AtomicFile.
void write_file_atomically(const std::string& target, std::string_view text);

}  // namespace tq
