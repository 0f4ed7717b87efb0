#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace tq {

// The whole content of a regular file from someone else. Throws InputError when it cannot be read, is not a regular
// file, or holds more than `limit` bytes (checked before anything is read).
std::string read_input_file(const std::string& path, std::size_t limit);

// The first `bytes` of such a file, or all of it where it is shorter.
std::string read_input_head(const std::string& path, std::size_t bytes);

// Text from a file as it may stand in a message of one line: control characters replaced, cut after 80 bytes.
std::string printable(std::string_view text);

}  // namespace tq
