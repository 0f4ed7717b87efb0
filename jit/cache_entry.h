#pragma once

#include <cstddef>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "jit/compiler.h"

namespace tq {

// Raised whenever a file that an older program wrote would be misread. Part of every key.
inline constexpr std::string_view kCacheFormat = "tq cubin cache 1";

// The bytes of a cache file: format, key, lowered name, resource usage, log, cubin, each preceded by its
// length, and the SHA-256 of all that.
std::string write_cache_entry(std::string_view key, const CompiledImage& image);

// Nothing when the bytes are not a whole, undamaged entry for this key.
std::optional<CompiledImage> read_cache_entry(std::string_view bytes, std::string_view key);

}  // namespace tq
