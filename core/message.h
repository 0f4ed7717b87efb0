#pragma once

#include <concepts>
#include <cstddef>
#include <cstring>
#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

// What processes of one program on one kind of machine tell each other: values one after the other, as they
// lie in memory. Not a file format.
namespace tq {

// A struct takes part by a function fields(archive, value), which names its members to writer and reader
// alike; one without it is copied as its bytes.
template <typename T, typename Archive>
concept NamesFields = requires(Archive& archive, T& value) {
  fields(archive, value);
};

class MessageWriter {
 public:
  template <typename... Values>
  void operator()(const Values&... values) {
    (put(values), ...);
  }
  const std::string& bytes() const { return bytes_; }

 private:
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
  void put(const T& value) {
    if constexpr (NamesFields<T, MessageWriter>) {
      fields(*this, const_cast<T&>(value));
    } else {
      static_assert(std::is_trivially_copyable_v<T> && !std::is_pointer_v<T>);
      bytes_.append(reinterpret_cast<const char*>(&value), sizeof value);
    }
  }

  std::string bytes_;
};

class MessageError : public std::runtime_error {
 public:
  MessageError() : std::runtime_error("a message between processes ends too early") {}
};

// Reads what a MessageWriter wrote, in its order. The bytes may come from a process that a hostile file has
// taken over: whatever they are, reading stays within them, or throws MessageError.
class MessageReader {
 public:
  // `bytes` outlive the reader.
  explicit MessageReader(std::string_view bytes) : rest_(bytes) {}

  template <typename... Values>
  void operator()(Values&... values) {
    (take(values), ...);
  }
  bool empty() const { return rest_.empty(); }

 private:
  std::string_view next(std::size_t count) {
    if (count > rest_.size()) throw MessageError();
    const std::string_view bytes = rest_.substr(0, count);
    rest_.remove_prefix(count);
    return bytes;
  }
  std::size_t next_size() {
    std::size_t size = 0;
    take(size);
    if (size > rest_.size()) throw MessageError();  // no element takes less than a byte
    return size;
  }
  void take(std::string& text) { text = next(next_size()); }
  template <typename T>
  void take(std::vector<T>& list) {
    // No reservation: a size that nothing backs is found out before it costs memory.
    list.clear();
    for (std::size_t left = next_size(); left > 0; --left) take(list.emplace_back());
  }
  template <typename T>
  void take(T& value) {
    if constexpr (NamesFields<T, MessageReader>) {
      fields(*this, value);
    } else if constexpr (std::same_as<T, bool>) {
      value = next(1).front() != 0;
    } else {
      static_assert(std::is_trivially_copyable_v<T> && !std::is_pointer_v<T>);
      std::memcpy(static_cast<void*>(&value), next(sizeof value).data(), sizeof value);
    }
  }

  std::string_view rest_;
};

}  // namespace tq
