#pragma once

#include <cstddef>

namespace tq {

// SystemError with the bytes asked for and those free in the current context.
[[noreturn]] void throw_out_of_memory(std::size_t asked_bytes);

}  // namespace tq
