#include "datasets/atomic_file.h"

#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <memory>
#include <utility>

#include "core/error.h"

namespace tq {
namespace {

constexpr std::string_view kMarker = ".tq-tmp.";

// The temporaries of this process, where a signal handler can find them: fixed memory, no locks.
struct Slot {
  enum State : int { free, claimed, filled };
  std::atomic<int> state{free};
  char path[PATH_MAX];
};
static_assert(std::atomic<int>::is_always_lock_free);
std::array<Slot, 64> slots;

// -1 when the table is full or the path too long for it: the temporary then outlives a signal, as it would a
// kill.
int fill_slot(const std::string& path) {
  if (path.size() >= sizeof Slot::path) return -1;
  for (std::size_t i = 0; i < slots.size(); ++i) {
    int expected = Slot::free;
    if (!slots[i].state.compare_exchange_strong(expected, Slot::claimed)) continue;
    std::memcpy(slots[i].path, path.c_str(), path.size() + 1);
    slots[i].state.store(Slot::filled);
    return static_cast<int>(i);
  }
  return -1;
}

bool in_slots(const std::string& path) {
  for (const Slot& slot : slots) {
    if (slot.state.load() == Slot::filled && path == slot.path) return true;
  }
  return false;
}

void free_slot(int slot) {
  if (slot >= 0) slots[static_cast<std::size_t>(slot)].state.store(Slot::free);
}

std::string folder_of(const std::string& path) {
  const std::size_t slash = path.rfind('/');
  if (slash == std::string::npos) return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}

std::string name_of(const std::string& path) { return path.substr(path.rfind('/') + 1); }

class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  ~Descriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int get() const { return fd_; }

 private:
  int fd_;
};

// Calls a system call again for as long as a signal interrupts it.
template <typename Call>
auto uninterrupted(Call call) {
  auto result = call();
  while (result < 0 && errno == EINTR) result = call();
  return result;
}

[[noreturn]] void fail(const std::string& target, const char* what) {
  throw SystemError("{}: cannot {}: {}", target, what, std::strerror(errno));
}

// Whether a temporary's name shows it to belong to a process that is gone. A name with this process's own
// number is another's when this one has no such AtomicFile: process numbers come round, in containers soon.
bool is_stale(const std::string& path, std::string_view suffix) {
  pid_t pid = 0;
  const auto [end, error] = std::from_chars(suffix.data(), suffix.data() + suffix.size(), pid);
  if (error != std::errc() || pid <= 0 || end == suffix.data() + suffix.size() || *end != '-') return false;
  if (pid == getpid()) return !in_slots(path);
  return kill(pid, 0) != 0 && errno == ESRCH;
}

void remove_stale_temporaries(const std::string& folder, const std::string& name) {
  const std::unique_ptr<DIR, int (*)(DIR*)> listing(opendir(folder.c_str()), closedir);
  if (!listing) return;
  const std::string prefix = "." + name + std::string(kMarker);
  while (const dirent* entry = readdir(listing.get())) {
    const std::string_view found = entry->d_name;
    if (!found.starts_with(prefix)) continue;
    const std::string path = folder + "/" + entry->d_name;
    if (is_stale(path, found.substr(prefix.size()))) unlink(path.c_str());
  }
}

}  // namespace

AtomicFile::AtomicFile(std::string target) : target_(std::move(target)) {
  static std::atomic<unsigned> counter{0};
  const std::string folder = folder_of(target_);
  const std::string name = name_of(target_);
  struct stat status {};
  if (name.empty() || (stat(target_.c_str(), &status) == 0 && !S_ISREG(status.st_mode))) {
    throw SystemError("{}: cannot write: not a regular file", target_);
  }
  if (stat(folder.c_str(), &status) != 0) fail(target_, "write: its folder");
  if (!S_ISDIR(status.st_mode)) throw SystemError("{}: cannot write: '{}' is not a folder", target_, folder);
  if (access(folder.c_str(), W_OK | X_OK) != 0) fail(target_, "write to its folder");
  remove_stale_temporaries(folder, name);
  temporary_ = fmt::format("{}/.{}{}{}-{}", folder, name, kMarker, getpid(), counter++);
  slot_ = fill_slot(temporary_);
}

AtomicFile::~AtomicFile() {
  if (!committed_) unlink(temporary_.c_str());
  free_slot(slot_);
}

void AtomicFile::commit() {
  const std::string folder = folder_of(target_);
  const Descriptor directory(
      uninterrupted([&] { return open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC); }));
  if (directory.get() < 0) fail(target_, "open its folder");
  {
    const Descriptor file(uninterrupted([&] { return open(temporary_.c_str(), O_RDONLY | O_CLOEXEC); }));
    if (file.get() < 0) fail(target_, "open its temporary file");
    if (uninterrupted([&] { return fsync(file.get()); }) != 0) fail(target_, "write to the disk");
  }
  if (rename(temporary_.c_str(), target_.c_str()) != 0) fail(target_, "rename the temporary file");
  committed_ = true;
  // Some network file systems do not sync a folder (EINVAL); the rename is then as durable as they make it.
  if (uninterrupted([&] { return fsync(directory.get()); }) != 0 && errno != EINVAL) {
    throw SystemError("{}: is written, but may not outlast a power failure: {}", target_,
                      std::strerror(errno));
  }
}

void write_file_atomically(const std::string& target, std::string_view text) {
  AtomicFile file(target);
  {
    const Descriptor descriptor(uninterrupted(
        [&] { return open(file.temporary().c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666); }));
    if (descriptor.get() < 0) fail(target, "create a temporary file");
    while (!text.empty()) {
      const ssize_t written =
          uninterrupted([&] { return write(descriptor.get(), text.data(), text.size()); });
      if (written < 0) fail(target, "write");
      text.remove_prefix(static_cast<std::size_t>(written));
    }
  }
  file.commit();
}

void remove_temporaries_on_signal() noexcept {
  for (const Slot& slot : slots) {
    if (slot.state.load() == Slot::filled) unlink(slot.path);
  }
}

}  // namespace tq
