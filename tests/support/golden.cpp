#include "tests/support/golden.h"

#include <doctest/doctest.h>

#include <bit>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <stdexcept>
#include <string_view>

#include "core/sha256.h"
#include "tests/support/temporary_folder.h"

namespace tq::test {
namespace {

constexpr const char* kListHeader =
    "# name | bytes | first half of their SHA-256 | the first 8 of them. Lines are added, never changed:\n"
    "# tests/support/golden.h says how.\n";

bool adding() {
  const char* mode = std::getenv("TQ_GOLDEN");
  return mode != nullptr && std::string_view(mode) == "add";
}

std::string what_to_do(const std::string& name) {
  return "'" + name +
         "' is not what was frozen. If what is written should change: raise the version of the format, go on "
         "reading the earlier versions, and add what the new one writes with TQ_GOLDEN=add "
         "(tests/support/golden.h)";
}

std::string description(const std::string& bytes) {
  std::string first;
  for (std::size_t i = 0; i < bytes.size() && i < 8; ++i) {
    char digits[3];
    std::snprintf(digits, sizeof(digits), "%02x",
                  static_cast<unsigned>(static_cast<unsigned char>(bytes[i])));
    first += digits;
  }
  return std::to_string(bytes.size()) + " | " + sha256_hex(bytes).substr(0, 32) + " | " + first;
}

}  // namespace

GoldenDigests::GoldenDigests(const std::string& list) : path_(golden_path(list + ".txt")) {
  std::ifstream stream(path_);
  for (std::string line; std::getline(stream, line);) {
    if (line.empty() || line.front() == '#') continue;
    const std::size_t end = line.find(" | ");
    if (end == line.npos) throw std::runtime_error(path_ + ": not a line of a list: " + line);
    if (!lines_.emplace(line.substr(0, end), line.substr(end + 3)).second)
      throw std::runtime_error(path_ + ": twice: " + line.substr(0, end));
  }
}

void GoldenDigests::check(const std::string& name, const std::string& bytes) {
  const std::string found = description(bytes);
  if (!lines_.contains(name)) {
    if (!adding()) {
      FAIL_CHECK(path_ << " has no line '" << name
                       << "'; where it is new, add it with TQ_GOLDEN=add (tests/support/golden.h)");
      return;
    }
    const bool first = !std::filesystem::exists(path_);
    std::ofstream(path_, std::ios::app) << (first ? kListHeader : "") << name << " | " << found << '\n';
    lines_[name] = found;
  }
  if (found == lines_[name]) return;
  FAIL_CHECK(path_ << ": " << what_to_do(name) << "\n  frozen: " << lines_[name] << "\n  now:    " << found);
}

std::string golden_path(const std::string& name) { return std::string(TQ_GOLDEN_FOLDER) + "/" + name; }

void add_golden_file(const std::string& name, const std::string& bytes) {
  const std::string path = golden_path(name);
  if (!adding() || std::filesystem::exists(path)) return;
  std::filesystem::create_directories(std::filesystem::path(path).parent_path());
  write_text(path, bytes);
}

void check_golden_file(const std::string& name, const std::string& bytes) {
  add_golden_file(name, bytes);
  const std::string frozen = read_text(golden_path(name));
  if (bytes == frozen) return;
  std::size_t at = 0;
  while (at < bytes.size() && at < frozen.size() && bytes[at] == frozen[at]) ++at;
  FAIL_CHECK(golden_path(name) << ": " << what_to_do(name) << "\n  " << frozen.size() << " bytes frozen, "
                               << bytes.size() << " now, the first difference at byte " << at);
}

void ByteString::add_bytes(const void* number, std::size_t size) {
  // Every machine that runs this is little-endian, as the formats are.
  static_assert(std::endian::native == std::endian::little);
  text_.append(static_cast<const char*>(number), size);
}

}  // namespace tq::test
