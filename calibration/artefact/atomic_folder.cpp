#include "calibration/artefact/atomic_folder.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>

#include "core/error.h"

namespace tq {
namespace {

namespace fs = std::filesystem;

[[noreturn]] void fail(const std::string& target, const char* what) {
  throw SystemError("{}: cannot {}: {}", target, what, std::strerror(errno));
}

void sync_folder(const std::string& folder, const std::string& target) {
  const int descriptor = open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (descriptor < 0) fail(target, "open its folder");
  // EINVAL: a network file system that does not sync folders.
  const bool synced = fsync(descriptor) == 0 || errno == EINVAL;
  const int error = errno;
  close(descriptor);
  errno = error;
  if (!synced) fail(target, "write to the disk");
}

}  // namespace

AtomicFolder::AtomicFolder(std::string target) : target_(std::move(target)) {
  while (target_.size() > 1 && target_.back() == '/') target_.pop_back();
  const fs::path path = target_;
  const std::string name = path.filename().string();
  if (name.empty() || name == "." || name == "..")
    throw SystemError("{}: cannot write: not a folder's name", target_);
  parent_ = path.has_parent_path() ? path.parent_path().string() : ".";
  temporary_ = (fs::path(parent_) / ("." + name + ".tq-tmp")).string();

  if (mkdir(temporary_.c_str(), 0777) != 0 && errno != EEXIST)
    fail(target_, "create a temporary folder beside it");
  lock_ = open(temporary_.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  if (lock_ < 0) fail(target_, "open a temporary folder beside it");
  // A name that no longer leads to the locked folder was published by its owner between our open and our
  // lock.
  struct stat locked {
  }, named{};
  const bool owned = flock(lock_, LOCK_EX | LOCK_NB) == 0 && fstat(lock_, &locked) == 0 &&
                     stat(temporary_.c_str(), &named) == 0 && locked.st_ino == named.st_ino;
  if (!owned) {
    close(lock_);
    throw SystemError("{}: cannot write: another process is writing it", target_);
  }
  std::error_code error;
  for (fs::directory_iterator entry(temporary_, error), end; !error && entry != end; entry.increment(error)) {
    fs::remove_all(entry->path(), error);
  }
  if (error) {
    close(lock_);
    throw SystemError("{}: cannot clear '{}': {}", target_, temporary_, error.message());
  }
}

AtomicFolder::~AtomicFolder() {
  std::error_code ignored;  // what stays is cleared by the next run
  if (!temporary_.empty()) fs::remove_all(temporary_, ignored);
  close(lock_);
}

void AtomicFolder::commit() {
  sync_folder(temporary_, target_);
  for (const auto& entry : fs::recursive_directory_iterator(temporary_)) {
    if (entry.is_directory()) sync_folder(entry.path().string(), target_);
  }
  if (rename(temporary_.c_str(), target_.c_str()) != 0) {
    if (errno != ENOTEMPTY && errno != EEXIST) fail(target_, "rename the temporary folder");
    // The old content is then under the temporary name, and goes with this object.
    if (renameat2(AT_FDCWD, temporary_.c_str(), AT_FDCWD, target_.c_str(), RENAME_EXCHANGE) != 0) {
      fail(target_, "exchange it with the temporary folder (remove it first)");
    }
    sync_folder(parent_, target_);
    return;
  }
  temporary_.clear();
  sync_folder(parent_, target_);
}

}  // namespace tq
