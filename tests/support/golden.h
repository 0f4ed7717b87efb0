#pragma once

#include <cstddef>
#include <map>
#include <string>

// Frozen bytes. tests/golden holds files that this project wrote once, and lists of digests of what it
// encodes; a program that writes anything else fails its tests. Nothing there is ever changed or removed: who
// means to change what is written raises the format's version, still reads the earlier ones, and adds what
// the new version writes under its own name. A name without a version may never change at all.
//
// With TQ_GOLDEN=add in the environment the tests add the names that are not there yet; they change none.
namespace tq::test {

// One list of digests, tests/golden/<list>.txt: a line a name.
class GoldenDigests {
 public:
  explicit GoldenDigests(const std::string& list);
  // Fails the running test unless the bytes are those of the name.
  void check(const std::string& name, const std::string& bytes);

 private:
  std::string path_;
  std::map<std::string, std::string> lines_;
};

// Where tests/golden/<name> is, whether it exists or not.
std::string golden_path(const std::string& name);
// With TQ_GOLDEN=add, and where there is no such file yet, writes it.
void add_golden_file(const std::string& name, const std::string& bytes);
// Fails the running test unless the bytes are those of the file.
void check_golden_file(const std::string& name, const std::string& bytes);

// The bytes of numbers in little-endian order, one array after the other.
class ByteString {
 public:
  template <typename Numbers>
  ByteString& add(const Numbers& numbers) {
    for (const auto number : numbers) add_bytes(&number, sizeof(number));
    return *this;
  }
  const std::string& text() const { return text_; }

 private:
  void add_bytes(const void* number, std::size_t size);
  std::string text_;
};

}  // namespace tq::test
