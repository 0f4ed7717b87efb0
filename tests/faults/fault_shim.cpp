// Preloaded (LD_PRELOAD) into a program, fails or kills it at the n-th call that changes the disk below a
// folder: opening a file to write, write, fsync, rename, ftruncate, mkdir, unlink.
//
//   FAULT_FOLDER  where calls count; a relative path is taken to lie below it
//   FAULT_AT      which call, from 1; 0: none
//   FAULT_KIND    EIO: that call alone fails, and does nothing.
//                 ENOSPC: the disk is full from then on. A write takes half of its bytes first; what needs no
//                 room (ftruncate, unlink) goes on working. kill: SIGKILL instead of the call; a write takes
//                 half of its bytes first.
//   FAULT_LOG     a line for each call, appended: its number, name and file

#include <dlfcn.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <climits>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <string_view>

namespace {

std::string_view variable(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? std::string_view() : value;
}

template <typename Function>
Function* next(const char* name) {
  return reinterpret_cast<Function*>(dlsym(RTLD_NEXT, name));
}

bool counts(std::string_view path) {
  return path.substr(0, 1) != "/" || path.starts_with(variable("FAULT_FOLDER"));
}

bool counts(int fd, std::string& path) {
  struct stat status {};
  if (fstat(fd, &status) != 0 || !(S_ISREG(status.st_mode) || S_ISDIR(status.st_mode))) return false;
  char buffer[PATH_MAX];
  const ssize_t size = readlink(("/proc/self/fd/" + std::to_string(fd)).c_str(), buffer, sizeof buffer);
  if (size <= 0) return false;
  path.assign(buffer, static_cast<std::size_t>(size));
  return counts(path);
}

void log_call(int number, const char* name, std::string_view path) {
  static const int file = [] {
    const std::string log(variable("FAULT_LOG"));
    return log.empty()
               ? -1
               : next<int(const char*, int, ...)>("open")(log.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0666);
  }();
  if (file < 0) return;
  const std::string line = std::to_string(number) + " " + name + " " + std::string(path) + "\n";
  next<ssize_t(int, const void*, std::size_t)>("write")(file, line.data(), line.size());
}

enum class Fault { none, error, no_space, kill };

// What befalls this call; errno is set.
Fault take_call(const char* name, std::string_view path, bool needs_room = true) {
  static std::atomic<int> calls{0};
  static const int at = std::atoi(std::string(variable("FAULT_AT")).c_str());
  static const std::string_view kind = variable("FAULT_KIND");
  const int number = ++calls;
  log_call(number, name, path);
  if (at == 0 || number < at) return Fault::none;
  if (kind == "ENOSPC") {
    if (!needs_room) return Fault::none;
    errno = ENOSPC;
    return number == at ? Fault::no_space : Fault::error;
  }
  if (number > at) return Fault::none;
  errno = EIO;
  return kind == "kill" ? Fault::kill : Fault::error;
}

void die() { kill(getpid(), SIGKILL); }

// 0 or -1, or what `call` does.
template <typename Call>
auto faulty(const char* name, std::string_view path, bool needs_room, Call call) -> decltype(call()) {
  switch (take_call(name, path, needs_room)) {
    case Fault::none:
      return call();
    case Fault::kill:
      die();
      [[fallthrough]];
    default:
      return -1;
  }
}

// `call` writes the first so many bytes.
template <typename Call>
ssize_t faulty_write(int fd, std::size_t size, Call call) {
  std::string path;
  if (!counts(fd, path)) return call(size);
  switch (take_call("write", path)) {
    case Fault::none:
      return call(size);
    case Fault::error:
      return -1;
    case Fault::kill:
      call(size / 2);
      die();
      [[fallthrough]];
    case Fault::no_space:
      break;
  }
  return size < 2 ? -1 : call(size / 2);
}

int faulty_open(const char* function, const char* path, int flags, mode_t mode) {
  const auto call = [&] { return next<int(const char*, int, ...)>(function)(path, flags, mode); };
  const bool writes = (flags & O_ACCMODE) != O_RDONLY || (flags & O_CREAT) != 0;
  return writes && counts(path) ? faulty("open", path, true, call) : call();
}

std::FILE* faulty_fopen(const char* function, const char* path, const char* mode) {
  const bool writes = std::string_view(mode).find_first_of("wa+") != std::string_view::npos;
  if (writes && counts(path) && faulty("open", path, true, [] { return 0; }) != 0) return nullptr;
  return next<std::FILE*(const char*, const char*)>(function)(path, mode);
}

}  // namespace

extern "C" {

int open(const char* path, int flags, ...) {
  std::va_list rest;
  va_start(rest, flags);
  const mode_t mode = (flags & O_CREAT) != 0 ? va_arg(rest, mode_t) : 0;
  va_end(rest);
  return faulty_open("open", path, flags, mode);
}

int open64(const char* path, int flags, ...) {
  std::va_list rest;
  va_start(rest, flags);
  const mode_t mode = (flags & O_CREAT) != 0 ? va_arg(rest, mode_t) : 0;
  va_end(rest);
  return faulty_open("open64", path, flags, mode);
}

std::FILE* fopen(const char* path, const char* mode) { return faulty_fopen("fopen", path, mode); }
std::FILE* fopen64(const char* path, const char* mode) { return faulty_fopen("fopen64", path, mode); }

ssize_t write(int fd, const void* data, std::size_t size) {
  return faulty_write(fd, size, [&](std::size_t bytes) {
    return next<ssize_t(int, const void*, std::size_t)>("write")(fd, data, bytes);
  });
}

ssize_t pwrite(int fd, const void* data, std::size_t size, off_t offset) {
  return faulty_write(fd, size, [&](std::size_t bytes) {
    return next<ssize_t(int, const void*, std::size_t, off_t)>("pwrite")(fd, data, bytes, offset);
  });
}

ssize_t pwrite64(int fd, const void* data, std::size_t size, off64_t offset) {
  return pwrite(fd, data, size, offset);
}

// Its pieces one by one: a short count is as allowed as for write.
ssize_t writev(int fd, const iovec* pieces, int count) {
  ssize_t sum = 0;
  for (int i = 0; i < count; ++i) {
    const ssize_t written = write(fd, pieces[i].iov_base, pieces[i].iov_len);
    if (written < 0) return sum > 0 ? sum : -1;
    sum += written;
    if (static_cast<std::size_t>(written) < pieces[i].iov_len) break;
  }
  return sum;
}

int fsync(int fd) {
  std::string path;
  const auto call = [&] { return next<int(int)>("fsync")(fd); };
  return counts(fd, path) ? faulty("fsync", path, true, call) : call();
}

int ftruncate(int fd, off_t size) {
  std::string path;
  const auto call = [&] { return next<int(int, off_t)>("ftruncate")(fd, size); };
  return counts(fd, path) ? faulty("ftruncate", path, false, call) : call();
}

int ftruncate64(int fd, off64_t size) { return ftruncate(fd, size); }

int rename(const char* from, const char* to) noexcept {
  const auto call = [&] { return next<int(const char*, const char*)>("rename")(from, to); };
  return counts(to) ? faulty("rename", to, true, call) : call();
}

int renameat2(int from_folder, const char* from, int to_folder, const char* to, unsigned flags) noexcept {
  const auto call = [&] {
    return next<int(int, const char*, int, const char*, unsigned)>("renameat2")(from_folder, from, to_folder,
                                                                                to, flags);
  };
  return counts(to) ? faulty("rename", to, true, call) : call();
}

int mkdir(const char* path, mode_t mode) noexcept {
  const auto call = [&] { return next<int(const char*, mode_t)>("mkdir")(path, mode); };
  return counts(path) ? faulty("mkdir", path, true, call) : call();
}

int unlink(const char* path) noexcept {
  const auto call = [&] { return next<int(const char*)>("unlink")(path); };
  return counts(path) ? faulty("unlink", path, false, call) : call();
}

int unlinkat(int folder, const char* path, int flags) noexcept {
  const auto call = [&] { return next<int(int, const char*, int)>("unlinkat")(folder, path, flags); };
  return counts(path) ? faulty("unlink", path, false, call) : call();
}

}  // extern "C"
