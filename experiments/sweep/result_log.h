#pragma once

#include <cstdint>
#include <map>
#include <string>

namespace tq {

// The files of a sweep's folder.
inline constexpr char kResultsFile[] = "results.jsonl";
inline constexpr char kTimingsFile[] = "timings.jsonl";
inline constexpr char kManifestFile[] = "manifest.json";

// The complete lines of FOLDER/results.jsonl by key; nothing when there is no such file. A last line without
// its newline was cut by a kill, and is left out. Throws InputError for what no sweep has written.
std::map<std::string, std::string> read_results(const std::string& folder);

// Of a line that read_results() has checked.
std::string key_of(const std::string& line);

// FOLDER/results.jsonl while this process alone appends to it. A line is one write, then fsync: after a kill
// at any moment the file is a sequence of whole lines and at most one cut line, which the next ResultLog
// drops.
class ResultLog {
 public:
  // Makes the folder where it is missing. Throws UsageError when it holds files and `resume` is not set, or
  // holds files but no sweep, and when another process has the log open; InputError as read_results() does.
  ResultLog(const std::string& folder, bool resume);
  ~ResultLog();
  ResultLog(const ResultLog&) = delete;
  ResultLog& operator=(const ResultLog&) = delete;

  // By key; without the newline.
  const std::map<std::string, std::string>& lines() const { return lines_; }

  // Throws SystemError (disk full); the file is then as it was before.
  void append(const std::string& key, const std::string& line);

 private:
  std::string path_;
  int file_ = -1;
  std::int64_t size_ = 0;
  std::map<std::string, std::string> lines_;
};

}  // namespace tq
