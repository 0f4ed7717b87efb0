#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

#include "core/sha256.h"

namespace tq {

// SHA-256 of a canonical byte string: every field is its length in bytes (u64) and then its bytes, so that no
// two lists of fields give the same string; numbers are little-endian.
class FieldHash {
 public:
  void text(std::string_view value) {
    length(value.size());
    hash_.update(value.data(), value.size());
  }
  void integer(std::int64_t value) {
    length(8);
    little_endian(static_cast<std::uint64_t>(value), 8);
  }
  void optional_number(const std::optional<double>& value) {
    length(value ? 8 : 0);
    if (value) little_endian(std::bit_cast<std::uint64_t>(*value), 8);
  }
  void number(double value) { optional_number(value); }
  void numbers(std::span<const double> values) {
    length(8 * values.size());
    for (const double value : values) little_endian(std::bit_cast<std::uint64_t>(value), 8);
  }
  void numbers(std::span<const float> values) {
    length(4 * values.size());
    for (const float value : values) little_endian(std::bit_cast<std::uint32_t>(value), 4);
  }
  void numbers(std::span<const std::uint16_t> values) {
    length(2 * values.size());
    for (const std::uint16_t value : values) little_endian(value, 2);
  }
  Sha256::Digest finish() { return hash_.finish(); }

 private:
  void length(std::size_t bytes) { little_endian(bytes, 8); }
  void little_endian(std::uint64_t value, int bytes) {
    std::uint8_t out[8];
    for (int i = 0; i < bytes; ++i) out[i] = static_cast<std::uint8_t>(value >> (8 * i));
    hash_.update(out, static_cast<std::size_t>(bytes));
  }

  Sha256 hash_;
};

}  // namespace tq
