#pragma once

#include <concepts>
#include <cstddef>
#include <cstring>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

namespace tq::hdf5 {

template <typename T>
concept Plain = std::is_arithmetic_v<T> || std::is_enum_v<T>;

// Values one after the other, as they lie in memory: between two processes of one program. A struct takes
// part by a function fields(archive, value) that names its members.
class MessageWriter {
 public:
  template <typename... Values>
  void operator()(const Values&... values) {
    (put(values), ...);
  }
  const std::string& bytes() const { return bytes_; }

 private:
  template <Plain T>
  void put(const T& value) {
    bytes_.append(reinterpret_cast<const char*>(&value), sizeof value);
  }
  void put(const std::string& text) {
    put(text.size());
    bytes_ += text;
  }
  template <typename T>
  void put(const std::vector<T>& list) {
    put(list.size());
    for (const T& value : list) put(value);
  }
  template <typename T>
  requires std::is_class_v<T>
  void put(const T& value) { fields(*this, const_cast<T&>(value)); }

  std::string bytes_;
};

// Reads what a MessageWriter wrote. Of anything else it gives something, and is never finished().
class MessageReader {
 public:
  // `bytes` outlive the reader.
  explicit MessageReader(std::string_view bytes) : bytes_(bytes) {}

  template <typename... Values>
  void operator()(Values&... values) {
    (take(values), ...);
  }
  // Whether every value was there, and nothing else.
  bool finished() const { return !failed_ && bytes_.empty(); }

 private:
  // Null where fewer are left.
  const char* next(std::size_t count) {
    failed_ = failed_ || count > bytes_.size();
    if (failed_) return nullptr;
    const char* at = bytes_.data();
    bytes_.remove_prefix(count);
    return at;
  }
  template <Plain T>
  void take(T& value) {
    const char* at = next(sizeof value);
    if (at == nullptr) return;
    if constexpr (std::is_same_v<T, bool>) {
      value = *at != 0;
    } else {
      std::memcpy(&value, at, sizeof value);
    }
  }
  void take(std::string& text) {
    std::size_t size = 0;
    take(size);
    if (const char* at = next(size); at != nullptr) text.assign(at, size);
  }
  template <typename T>
  void take(std::vector<T>& list) {
    std::size_t size = 0;
    take(size);
    failed_ = failed_ || size > bytes_.size();  // no element takes less than a byte
    if (failed_) return;
    list.resize(size);
    for (T& value : list) take(value);
  }
  template <typename T>
  requires std::is_class_v<T>
  void take(T& value) { fields(*this, value); }

  std::string_view bytes_;
  bool failed_ = false;
};

}  // namespace tq::hdf5
