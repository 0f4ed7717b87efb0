#pragma once

#include <cstddef>
#include <cstring>
#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

namespace tq {

// What processes of one program and one kind of machine tell each other: objects as they lie in memory. Not a
// file format.
class MessageWriter {
 public:
  template <typename T>
  void put(const T& value) {
    static_assert(std::is_trivially_copyable_v<T>);
    bytes_.append(reinterpret_cast<const char*>(&value), sizeof(T));
  }
  template <typename T>
  void put_list(const std::vector<T>& values) {
    static_assert(std::is_trivially_copyable_v<T>);
    put(values.size());
    bytes_.append(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T));
  }
  void put_text(std::string_view text) {
    put(text.size());
    bytes_.append(text);
  }
  const std::string& bytes() const { return bytes_; }

 private:
  std::string bytes_;
};

// Reads what a MessageWriter wrote, in its order; `bytes` outlives the reader.
class MessageReader {
 public:
  explicit MessageReader(std::string_view bytes) : rest_(bytes) {}

  template <typename T>
  T take() {
    static_assert(std::is_trivially_copyable_v<T>);
    T value;
    std::memcpy(static_cast<void*>(&value), take_bytes(sizeof(T)).data(), sizeof(T));
    return value;
  }
  template <typename T>
  std::vector<T> take_list() {
    static_assert(std::is_trivially_copyable_v<T>);
    std::vector<T> values(take<std::size_t>());
    const std::string_view bytes = take_bytes(values.size() * sizeof(T));
    if (!values.empty()) std::memcpy(static_cast<void*>(values.data()), bytes.data(), bytes.size());
    return values;
  }
  std::string take_text() { return std::string(take_bytes(take<std::size_t>())); }
  bool empty() const { return rest_.empty(); }

 private:
  std::string_view take_bytes(std::size_t count) {
    if (count > rest_.size()) throw std::logic_error("a message between processes ends too early");
    const std::string_view bytes = rest_.substr(0, count);
    rest_.remove_prefix(count);
    return bytes;
  }
  std::string_view rest_;
};

}  // namespace tq
