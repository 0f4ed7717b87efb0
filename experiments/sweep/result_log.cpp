#include "experiments/sweep/result_log.h"

#include <fcntl.h>
#include <spdlog/spdlog.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <string_view>

#include "core/error.h"
#include "experiments/sweep/result_line.h"

namespace tq {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t kKeyDigits = 64;

struct Contents {
  std::map<std::string, std::string> lines;
  std::size_t whole = 0;  // bytes up to the last newline
  std::size_t cut = 0;    // bytes after it
};

bool is_result_line(const std::string& line) {
  const nlohmann::json json = nlohmann::json::parse(line, nullptr, false);
  return line.starts_with(kLineStart) && json.is_object() && json["key"].is_string() &&
         json["key"].get_ref<const std::string&>().size() == kKeyDigits && json.contains("metrics");
}

Contents parse(const std::string& path, const std::string& text) {
  Contents contents;
  std::size_t number = 1;
  for (std::size_t end; (end = text.find('\n', contents.whole)) != std::string::npos; ++number) {
    std::string line = text.substr(contents.whole, end - contents.whole);
    if (!is_result_line(line))
      throw InputError("{}: line {} is no result of a sweep; nothing was changed", path, number);
    std::string key = key_of(line);
    if (!contents.lines.emplace(std::move(key), std::move(line)).second) {
      throw InputError("{}: line {} repeats the key of an earlier one; nothing was changed", path, number);
    }
    contents.whole = end + 1;
  }
  contents.cut = text.size() - contents.whole;
  // Only what a sweep began to write is ever dropped.
  const std::string_view rest = std::string_view(text).substr(contents.whole, kLineStart.size());
  if (rest != kLineStart.substr(0, rest.size())) {
    throw InputError("{}: line {} is no result of a sweep; nothing was changed", path, number);
  }
  return contents;
}

std::string read_text(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::string text{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  if (!file) throw SystemError("{}: cannot be read", path);
  return text;
}

bool holds_files(const std::string& folder) {
  std::error_code error;
  const bool empty = fs::is_empty(folder, error);
  if (error) throw SystemError("{}: cannot be read: {}", folder, error.message());
  return !empty;
}

void refuse_old_files(const std::string& folder) {
  throw UsageError("{}: is not empty; continue the sweep there with --resume, or choose another --out",
                   folder);
}

// So that the file's name outlasts a power failure as its lines do.
void sync_folder(const std::string& folder) {
  const int directory = open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (directory < 0) return;
  fsync(directory);
  close(directory);
}

}  // namespace

std::string key_of(const std::string& line) { return line.substr(kLineStart.size(), kKeyDigits); }

std::map<std::string, std::string> read_results(const std::string& folder) {
  const std::string path = (fs::path(folder) / kResultsFile).string();
  if (!fs::exists(path)) return {};
  return parse(path, read_text(path)).lines;
}

ResultLog::ResultLog(const std::string& folder, bool resume)
    : path_((fs::path(folder) / kResultsFile).string()) {
  std::error_code error;
  fs::create_directories(folder, error);
  if (error) throw SystemError("{}: cannot be created: {}", folder, error.message());
  const bool known = fs::exists(path_, error);
  if (holds_files(folder)) {
    if (!resume) refuse_old_files(folder);
    if (!known)
      throw UsageError("{}: holds files but no sweep ({} is missing); choose another --out", folder,
                       kResultsFile);
  }
  file_ = open(path_.c_str(), O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
  if (file_ < 0) throw SystemError("{}: cannot be written: {}", path_, std::strerror(errno));
  try {
    if (flock(file_, LOCK_EX | LOCK_NB) != 0) {
      if (errno == EWOULDBLOCK) throw UsageError("{}: another tq sweep is at work there", folder);
      throw SystemError("{}: cannot be locked: {}", path_, std::strerror(errno));
    }
    Contents contents = parse(path_, read_text(path_));
    // Of two that started at once on an empty folder, one may have finished before the other had the lock.
    if (!resume && contents.whole + contents.cut > 0) refuse_old_files(folder);
    if (contents.cut > 0) {
      if (ftruncate(file_, static_cast<off_t>(contents.whole)) != 0) {
        throw SystemError("{}: cannot be written: {}", path_, std::strerror(errno));
      }
      spdlog::warn("{}: the last line was cut off after {} bytes; it is measured again", path_, contents.cut);
    }
    size_ = static_cast<std::int64_t>(contents.whole);
    lines_ = std::move(contents.lines);
  } catch (...) {
    close(file_);
    throw;
  }
  sync_folder(folder);
}

ResultLog::~ResultLog() { close(file_); }

void ResultLog::append(const std::string& key, const std::string& line) {
  const std::string text = line + "\n";
  const ssize_t written = write(file_, text.data(), text.size());
  if (written != static_cast<ssize_t>(text.size()) || fsync(file_) != 0) {
    // A short write means that there was no room for more.
    const int why = written < 0 || written == static_cast<ssize_t>(text.size()) ? errno : ENOSPC;
    // Where even this fails, the next run finds a cut line.
    const bool restored = ftruncate(file_, static_cast<off_t>(size_)) == 0;
    throw SystemError("{}: cannot be written: {}; {} results are kept{}, go on with --resume", path_,
                      std::strerror(why), lines_.size(), restored ? "" : " and one is cut off");
  }
  size_ += written;
  lines_.emplace(key, line);
}

}  // namespace tq
