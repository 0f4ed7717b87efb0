#include <doctest/doctest.h>

#include <array>
#include <cstdint>
#include <vector>

#include "core/packing.h"
#include "tests/support/reference.h"
#include "tests/support/test_seed.h"

TEST_CASE("packing agrees with one bit at a time and comes back") {
  tq::Random random = tq::test::test_random(30);
  for (int bits = 1; bits <= 8; ++bits) {
    for (std::size_t count = 0; count <= 1030; count += count < 70 ? 1 : 48) {
      CAPTURE(bits);
      CAPTURE(count);
      std::vector<std::uint8_t> codes(count);
      for (std::uint8_t& code : codes) code = static_cast<std::uint8_t>(random.below(1u << bits));
      const std::size_t bytes = tq::packed_bytes(count, bits);
      CHECK(bytes == (count * static_cast<std::size_t>(bits) + 7) / 8);
      // One byte more on either side shows a write outside.
      std::vector<std::uint8_t> packed(bytes + 2, 0xa5);
      tq::pack_codes(codes.data(), count, bits, packed.data() + 1);
      CHECK(packed.front() == 0xa5);
      CHECK(packed.back() == 0xa5);
      const std::vector<std::uint8_t> inside(packed.begin() + 1, packed.end() - 1);
      CHECK(inside == tq::reference::pack(std::vector<int>(codes.begin(), codes.end()), bits));
      std::vector<std::uint8_t> unpacked(count + 1, 0xa5);
      tq::unpack_codes(inside.data(), count, bits, unpacked.data());
      CHECK(unpacked.back() == 0xa5);
      unpacked.pop_back();
      CHECK(unpacked == codes);
    }
  }
}

TEST_CASE("bits above the code's width are dropped") {
  const std::array<std::uint8_t, 4> codes{0xff, 0x04, 0xfb, 0x00};
  std::array<std::uint8_t, 2> packed{};
  tq::pack_codes(codes.data(), 4, 2, packed.data());
  CHECK(packed[0] == (3 | 0 << 2 | 3 << 4 | 0 << 6));
}

TEST_CASE("the byte formulas that the format prints") {
  tq::Random random = tq::test::test_random(31);
  for (int repeat = 0; repeat < 100; ++repeat) {
    std::array<std::uint8_t, 8> codes{};
    for (std::uint8_t& code : codes) code = static_cast<std::uint8_t>(random.below(8));
    const auto [a, b, c, d, e, f, g, h] = codes;
    std::array<std::uint8_t, 3> packed{};
    tq::pack_codes(codes.data(), 8, 3, packed.data());
    CHECK(packed[0] == (a | b << 3 | (c & 3) << 6));
    CHECK(packed[1] == (c >> 2 | d << 1 | e << 4 | (f & 1) << 7));
    CHECK(packed[2] == (f >> 1 | g << 2 | h << 5));
  }
  const std::array<std::uint8_t, 4> two{1, 2, 3, 0}, four{9, 4, 15, 7};
  std::array<std::uint8_t, 1> one_byte{};
  tq::pack_codes(two.data(), 4, 2, one_byte.data());
  CHECK(one_byte[0] == (1 | 2 << 2 | 3 << 4 | 0 << 6));
  std::array<std::uint8_t, 2> two_bytes{};
  tq::pack_codes(four.data(), 4, 4, two_bytes.data());
  CHECK(two_bytes[0] == (9 | 4 << 4));
  CHECK(two_bytes[1] == (15 | 7 << 4));
}
