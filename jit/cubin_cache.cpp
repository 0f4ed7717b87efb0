#include "jit/cubin_cache.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <filesystem>
#include <mutex>
#include <string_view>
#include <utility>

#include "core/error.h"
#include "core/field_hash.h"
#include "jit/cache_entry.h"

namespace tq {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kEnding = ".tqcubin";
constexpr std::string_view kTemporaryPrefix = ".tqcubin-tmp.";
// A temporary lives for the milliseconds of one write. By age, not by process number: the folder may be
// shared by machines and containers, whose processes are numbered apart.
constexpr std::time_t kTemporaryLifeSeconds = 3600;
constexpr std::time_t kTouchAfterSeconds = 60;  // a hit writes to the folder once a minute at most

struct Descriptor {
  explicit Descriptor(int opened) : fd(opened) {}
  ~Descriptor() {
    if (fd >= 0) ::close(fd);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int fd;
};

struct File {
  std::string path;
  std::uint64_t bytes;
  timespec modified;
};

struct Listing {
  std::vector<File> entries, temporaries;
};

Listing list_folder(const std::string& folder) {
  Listing listing;
  const std::unique_ptr<DIR, int (*)(DIR*)> directory(opendir(folder.c_str()), closedir);
  if (!directory) return listing;
  while (const dirent* found = readdir(directory.get())) {
    const std::string_view name = found->d_name;
    const bool temporary = name.starts_with(kTemporaryPrefix);
    if (!temporary && !name.ends_with(kEnding)) continue;  // not ours
    struct stat status {};
    if (fstatat(dirfd(directory.get()), found->d_name, &status, AT_SYMLINK_NOFOLLOW) != 0) continue;
    if (!S_ISREG(status.st_mode)) continue;
    (temporary ? listing.temporaries : listing.entries)
        .push_back(
            {folder + "/" + found->d_name, static_cast<std::uint64_t>(status.st_size), status.st_mtim});
  }
  return listing;
}

std::uint64_t total_bytes(const std::vector<File>& files) {
  std::uint64_t sum = 0;
  for (const File& file : files) sum += file.bytes;
  return sum;
}

bool older(const File& a, const File& b) {
  return std::pair(a.modified.tv_sec, a.modified.tv_nsec) < std::pair(b.modified.tv_sec, b.modified.tv_nsec);
}

bool write_all(int fd, std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t written = write(fd, bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return false;
    bytes.remove_prefix(static_cast<std::size_t>(written));
  }
  return true;
}

// False with errno set.
bool read_all(int fd, std::string& bytes) {
  std::size_t got = 0;
  while (got < bytes.size()) {
    const ssize_t piece = read(fd, bytes.data() + got, bytes.size() - got);
    if (piece < 0 && errno == EINTR) continue;
    if (piece < 0) return false;
    if (piece == 0) break;
    got += static_cast<std::size_t>(piece);
  }
  bytes.resize(got);
  return true;
}

}  // namespace

std::string cubin_key(const KernelSource& source, const SourceTree& tree, const Architecture& architecture,
                      const std::string& nvrtc_identity) {
  FieldHash hash;
  hash.text(kCacheFormat);
  hash.text(nvrtc_identity);
  hash.text(to_hex(tree.digest()));
  hash.text(source.text);
  hash.text(source.name_expression);
  for (const std::string& option : compile_options(source, architecture)) hash.text(option);
  return to_hex(hash.finish());
}

struct CubinCache::State {
  std::string folder;
  std::uint64_t max_bytes;
  mutable std::mutex mutex;
  std::string problem;

  std::string path_of(const std::string& key) const { return folder + "/" + key + std::string(kEnding); }

  void note(const char* what, int error) {
    const std::scoped_lock lock(mutex);
    if (problem.empty()) {
      problem =
          fmt::format("kernel cache {}: cannot {}: {}; kernels are compiled anew where they are not in it",
                      folder, what, std::strerror(error));
    }
  }

  // Least recently used first, until what is left fits; and what killed processes left behind.
  void tidy(const std::string& just_written) const {
    Listing listing = list_folder(folder);
    const std::time_t now = std::time(nullptr);
    for (const File& file : listing.temporaries) {
      if (file.modified.tv_sec + kTemporaryLifeSeconds < now) unlink(file.path.c_str());
    }
    std::uint64_t bytes = total_bytes(listing.entries);
    if (bytes <= max_bytes) return;
    std::sort(listing.entries.begin(), listing.entries.end(), older);
    for (const File& file : listing.entries) {
      if (bytes <= max_bytes) break;
      if (file.path == just_written) continue;
      unlink(file.path.c_str());
      bytes -= file.bytes;
    }
  }
};

CubinCache::CubinCache(std::string folder, std::uint64_t max_bytes) : state_(std::make_unique<State>()) {
  state_->folder = std::move(folder);
  state_->max_bytes = max_bytes;
}
CubinCache::~CubinCache() = default;
CubinCache::CubinCache(CubinCache&&) noexcept = default;
CubinCache& CubinCache::operator=(CubinCache&&) noexcept = default;

std::optional<CompiledImage> CubinCache::find(const std::string& key) {
  const std::string path = state_->path_of(key);
  const Descriptor file(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (file.fd < 0) {
    if (errno != ENOENT) state_->note("open an entry", errno);
    return std::nullopt;
  }
  struct stat status {};
  if (fstat(file.fd, &status) != 0 || !S_ISREG(status.st_mode)) return std::nullopt;
  std::string bytes(static_cast<std::size_t>(status.st_size), '\0');
  if (!read_all(file.fd, bytes)) {
    state_->note("read an entry", errno);
    return std::nullopt;
  }
  std::optional<CompiledImage> image = read_cache_entry(bytes, key);
  if (!image) {
    // Should another process have replaced it meanwhile, that one's work is lost and done again.
    unlink(path.c_str());
  } else if (status.st_mtim.tv_sec + kTouchAfterSeconds < std::time(nullptr)) {
    utimensat(AT_FDCWD, path.c_str(), nullptr, 0);  // a read-only folder just does not learn of it
  }
  return image;
}

bool CubinCache::store(const std::string& key, const CompiledImage& image) {
  const std::string bytes = write_cache_entry(key, image);
  if (bytes.size() > state_->max_bytes) return false;
  std::error_code error;
  fs::create_directories(state_->folder, error);
  if (error) {
    state_->note("make the folder", error.value());
    return false;
  }
  static std::atomic<unsigned> counter{0};
  const std::string path = state_->path_of(key);
  const std::string temporary =
      fmt::format("{}/{}{}-{}-{}", state_->folder, kTemporaryPrefix, key.substr(0, 16), getpid(), counter++);
  const auto give_up = [&](const char* what) {
    state_->note(what, errno);
    unlink(temporary.c_str());
    return false;
  };
  {
    const Descriptor file(open(temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666));
    if (file.fd < 0) {
      state_->note("write to the folder", errno);
      return false;
    }
    // No fsync: after a power failure the digest tells a whole entry from a damaged one.
    if (!write_all(file.fd, bytes)) return give_up("write an entry");
  }
  if (rename(temporary.c_str(), path.c_str()) != 0) return give_up("rename an entry");
  state_->tidy(path);
  return true;
}

CubinCache::Info CubinCache::info() const {
  const Listing listing = list_folder(state_->folder);
  return {state_->folder, listing.entries.size(), total_bytes(listing.entries), state_->max_bytes};
}

std::uint64_t CubinCache::clear() {
  const Listing listing = list_folder(state_->folder);
  std::uint64_t removed = 0;
  for (const File& file : listing.temporaries) unlink(file.path.c_str());
  for (const File& file : listing.entries) {
    if (unlink(file.path.c_str()) == 0) {
      ++removed;
    } else if (errno != ENOENT) {
      state_->note("remove an entry", errno);
    }
  }
  return removed;
}

std::string CubinCache::problem() const {
  const std::scoped_lock lock(state_->mutex);
  return state_->problem;
}

std::string default_cache_folder() {
  constexpr const char* kName = "/turboquant-lab";
  if (const char* cache = std::getenv("XDG_CACHE_HOME"); cache != nullptr && *cache == '/') {
    return std::string(cache) + kName;
  }
  if (const char* home = std::getenv("HOME"); home != nullptr && *home != '\0') {
    return std::string(home) + "/.cache" + kName;
  }
  return {};
}

}  // namespace tq
