#include "experiments/tune/stored_choices.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <iterator>

#include "datasets/atomic_file.h"

namespace tq::tune {
namespace {

// Of a folder, for as long as it lives. A file system that locks no folders does without.
class FolderLock {
 public:
  explicit FolderLock(const std::string& folder)
      : descriptor_(open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)) {
    if (descriptor_ >= 0) flock(descriptor_, LOCK_EX);
  }
  ~FolderLock() {
    if (descriptor_ >= 0) close(descriptor_);
  }
  FolderLock(const FolderLock&) = delete;
  FolderLock& operator=(const FolderLock&) = delete;

 private:
  int descriptor_;
};

std::string read_if_there(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

}  // namespace

void store_choices(const std::string& path, const TuningScope& scope, const Tuning& found) {
  const std::filesystem::path folder = std::filesystem::path(path).parent_path();
  const FolderLock lock(folder.empty() ? "." : folder.string());
  write_file_atomically(path, merge_tuning(read_if_there(path), scope, found));
}

}  // namespace tq::tune
