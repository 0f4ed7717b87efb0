#pragma once

#include <charconv>
#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

namespace tq {

// Bytes of a file from someone else. Throws InputError when it does not exist or is not a regular file.
std::size_t size_of_regular_file(const std::string& path);

// The whole content of such a file. Throws InputError also when it cannot be read or holds more than `limit`
// bytes (checked before anything is read).
std::string read_input_file(const std::string& path, std::size_t limit);

// The first `bytes` of such a file, or all of it where it is shorter.
std::string read_input_head(const std::string& path, std::size_t bytes);

// The whole of `text` as a decimal integer that fits Integer; nothing where it is something else.
template <typename Integer>
std::optional<Integer> parse_integer(std::string_view text) {
  Integer value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc() && end == text.data() + text.size() ? std::optional(value) : std::nullopt;
}

// Text from a file as it may stand in a message of one line: control characters replaced, cut after 80 bytes.
std::string printable(std::string_view text);

}  // namespace tq
