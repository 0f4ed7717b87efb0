#include "experiments/gnuplot.h"

#include <spawn.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>

#include "core/error.h"

namespace tq {
namespace {

// A file without a name: gnuplot's three streams are such files, so that neither side waits for the other to
// read.
class AnonymousFile {
 public:
  explicit AnonymousFile(const char* name) : file_(memfd_create(name, MFD_CLOEXEC)) {
    if (file_ < 0) fail();
  }
  ~AnonymousFile() { close(file_); }
  AnonymousFile(const AnonymousFile&) = delete;
  AnonymousFile& operator=(const AnonymousFile&) = delete;

  int descriptor() const { return file_; }

  // NOLINTNEXTLINE(readability-make-member-function-const): the file changes
  void fill(std::string_view text) {
    while (!text.empty()) {
      const ssize_t written = write(file_, text.data(), text.size());
      if (written < 0 && errno == EINTR) continue;
      if (written <= 0) fail();
      text.remove_prefix(static_cast<std::size_t>(written));
    }
    if (lseek(file_, 0, SEEK_SET) != 0) fail();
  }

  std::string contents() const {
    std::string text;
    std::array<char, 1 << 16> block;
    for (;;) {
      const ssize_t count = pread(file_, block.data(), block.size(), static_cast<off_t>(text.size()));
      if (count < 0 && errno == EINTR) continue;
      if (count < 0) fail();
      if (count == 0) return text;
      text.append(block.data(), static_cast<std::size_t>(count));
    }
  }

 private:
  [[noreturn]] static void fail() {
    throw SystemError("cannot pass data to gnuplot: {}", std::strerror(errno));
  }

  int file_;
};

class FileActions {
 public:
  FileActions() { posix_spawn_file_actions_init(&actions_); }
  ~FileActions() { posix_spawn_file_actions_destroy(&actions_); }
  FileActions(const FileActions&) = delete;
  FileActions& operator=(const FileActions&) = delete;
  void redirect(int from, int to) { posix_spawn_file_actions_adddup2(&actions_, from, to); }
  const posix_spawn_file_actions_t* get() const { return &actions_; }

 private:
  posix_spawn_file_actions_t actions_;
};

std::string first_line_of_error(const std::string& text) {
  // gnuplot repeats the faulty line and marks the place before it says what is wrong.
  const std::size_t message = text.find("line ");
  const std::size_t begin = message == std::string::npos ? text.find_first_not_of(" \n") : message;
  if (begin == std::string::npos) return "it does not say why";
  return text.substr(begin, text.find('\n', begin) - begin);
}

}  // namespace

std::string run_gnuplot(const std::string& script) {
  AnonymousFile input("gnuplot-input"), output("gnuplot-output"), errors("gnuplot-errors");
  input.fill(script);
  FileActions actions;
  actions.redirect(input.descriptor(), STDIN_FILENO);
  actions.redirect(output.descriptor(), STDOUT_FILENO);
  actions.redirect(errors.descriptor(), STDERR_FILENO);
  std::string name = "gnuplot", no_startup_files = "--default-settings";
  const std::array<char*, 3> arguments{name.data(), no_startup_files.data(), nullptr};
  pid_t child = 0;
  const int error = posix_spawnp(&child, name.c_str(), actions.get(), nullptr, arguments.data(), environ);
  if (error == ENOENT) {
    throw SystemError("gnuplot is not installed; it draws the plots (Debian, Ubuntu: gnuplot-nox)");
  }
  if (error != 0) throw SystemError("gnuplot cannot be started: {}", std::strerror(error));
  int status = 0;
  while (waitpid(child, &status, 0) < 0) {
    if (errno != EINTR) throw SystemError("gnuplot: cannot wait for it: {}", std::strerror(errno));
  }
  std::string result = output.contents();
  if (!WIFEXITED(status) || WEXITSTATUS(status) != 0 || result.empty()) {
    throw SystemError("gnuplot failed: {}", first_line_of_error(errors.contents()));
  }
  return result;
}

std::string gnuplot_string(std::string_view text) {
  std::string quoted = "'";
  for (const char c : text) {
    if (c == '\'') quoted += '\'';
    quoted += static_cast<unsigned char>(c) < ' ' ? ' ' : c;
  }
  return quoted + "'";
}

}  // namespace tq
