#include "core/packing.h"

#include <bit>
#include <cstring>

namespace tq {

static_assert(std::endian::native == std::endian::little,
              "packed codes are read and written as little-endian words");

void pack_codes(const std::uint8_t* codes, std::size_t count, int bits, std::uint8_t* packed) {
  // Eight codes of b bits are exactly b bytes, so a 64-bit word takes them for every b.
  const unsigned mask = (1u << bits) - 1;
  for (std::size_t i = 0; i < count; i += 8) {
    const std::size_t group = count - i < 8 ? count - i : 8;
    std::uint64_t word = 0;
    for (std::size_t k = 0; k < group; ++k) {
      word |= static_cast<std::uint64_t>(codes[i + k] & mask) << (k * static_cast<unsigned>(bits));
    }
    std::memcpy(packed, &word, packed_bytes(group, bits));
    packed += bits;
  }
}

void unpack_codes(const std::uint8_t* packed, std::size_t count, int bits, std::uint8_t* codes) {
  const unsigned mask = (1u << bits) - 1;
  for (std::size_t i = 0; i < count; i += 8) {
    const std::size_t group = count - i < 8 ? count - i : 8;
    std::uint64_t word = 0;
    std::memcpy(&word, packed, packed_bytes(group, bits));
    for (std::size_t k = 0; k < group; ++k) {
      codes[i + k] = static_cast<std::uint8_t>((word >> (k * static_cast<unsigned>(bits))) & mask);
    }
    packed += bits;
  }
}

}  // namespace tq
