#pragma once

#include <cstddef>
#include <cstdint>

namespace tq {

// Codes of 1..8 bits laid end to end, least significant bit first, in a little-endian byte stream: code i
// occupies the stream's bits [i b, (i+1) b). For 3 bits, eight codes a..h in three bytes: a | b<<3 |
// (c&3)<<6, c>>2 | d<<1 | e<<4 | (f&1)<<7, f>>1 | g<<2 | h<<5.

constexpr std::size_t packed_bytes(std::size_t codes, int bits) {
  return (codes * static_cast<std::size_t>(bits) + 7) / 8;
}

// `codes`: count bytes, each below 2^bits (higher bits are dropped). `packed`: packed_bytes(count, bits)
// bytes; the last byte's spare bits are 0.
void pack_codes(const std::uint8_t* codes, std::size_t count, int bits, std::uint8_t* packed);
void unpack_codes(const std::uint8_t* packed, std::size_t count, int bits, std::uint8_t* codes);

}  // namespace tq
