#pragma once

#include <string>
#include <string_view>

namespace tq {

// A file that appears whole or not at all: written under a temporary name in the same directory, then fsync,
// rename, fsync of the directory. Destroyed before commit(), it removes the temporary. A killed process
// leaves its temporary, `.NAME.tq-tmp.PID-N`; the next AtomicFile for the same target removes it (temporaries
// of live processes of this machine are left alone). A target that is a symbolic link is replaced, not
// followed.
class AtomicFile {
 public:
  // Throws SystemError when the directory does not exist or cannot be written, and when the target is
  // something other than a file (a device, a folder).
  explicit AtomicFile(std::string target);
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  // Where to write; the caller creates, fills and closes this file.
  const std::string& temporary() const { return temporary_; }
  // Throws SystemError (disk full, permission); the target is then as it was, except where the message says
  // that it is written.
  void commit();

 private:
  std::string target_;
  std::string temporary_;
  int slot_ = -1;  // in the table that remove_temporaries_on_signal() reads
  bool committed_ = false;
};

// `text` to `target` through an AtomicFile.
void write_file_atomically(const std::string& target, std::string_view text);

// For a signal handler that is about to end the process: unlinks the temporaries of all live AtomicFiles (of
// the first 64 of them, should there be more). Async-signal-safe.
void remove_temporaries_on_signal() noexcept;

}  // namespace tq
