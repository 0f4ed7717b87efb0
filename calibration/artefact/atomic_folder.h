#pragma once

#include <string>

namespace tq {

// A folder that appears whole or not at all, AtomicFile's counterpart: filled as `.NAME.tq-tmp` beside its
// target, then fsync of its folders, rename (an exchange, where the target exists), fsync of the parent.
// Destroyed before commit(), it removes the temporary; the one that a killed process left is cleared by the
// next AtomicFolder for the target.
class AtomicFolder {
 public:
  // Throws SystemError when the parent cannot be written, and when another process is writing the same
  // folder.
  explicit AtomicFolder(std::string target);
  ~AtomicFolder();
  AtomicFolder(const AtomicFolder&) = delete;
  AtomicFolder& operator=(const AtomicFolder&) = delete;

  // Exists and is empty; the caller fills it with files that are on the disk (datasets/atomic_file.h).
  const std::string& temporary() const { return temporary_; }
  // Whatever the target held is removed: the caller has made sure that it may be. Throws SystemError.
  void commit();

 private:
  std::string target_;
  std::string parent_;
  std::string temporary_;
  int lock_ = -1;  // the temporary, open and locked for as long as this object lives
};

}  // namespace tq
