#include <doctest/doctest.h>

#include <cstdint>
#include <cstring>
#include <vector>

#include "core/half.h"
#include "device/lookup.cuh"  // the device's code, on the host: on_host/device/ptx.cuh
#include "tests/kernel_templates/naive_tile.h"
#include "tests/support/test_seed.h"

using namespace tq::gpu;
using tq::Random;
using tq::test::at_place;
using tq::test::naive_codes;
using tq::test::test_random;
using tq::test::TokenCoordinate;

namespace {

// Codes of a tile, a byte each, as encode stages them.
struct Stage {
  int d;
  std::vector<u32> words;  // bytes in words: kernels read four at a time

  Stage(int head_dim, int bits, Random& random)
      : d(head_dim), words(static_cast<std::size_t>(kTileTokens * stage_stride(head_dim) / 4)) {
    // All of it, the padding too; codes are below 2^bits.
    const u32 mask = (1u << bits) - 1;
    for (u32& word : words) word = random.bits32() & mask * 0x01010101u;
  }
  const u8* bytes() const { return reinterpret_cast<const u8*>(words.data()); }
  u32 at(TokenCoordinate c) const { return bytes()[c.token * stage_stride(d) + c.coordinate]; }
};

std::vector<u32> words_of(const std::vector<std::uint8_t>& bytes) {
  std::vector<u32> words(bytes.size() / 4);
  std::memcpy(words.data(), bytes.data(), bytes.size());
  return words;
}

struct Span {
  int first, end;
};
constexpr Span kSpans[] = {{0, 64}, {0, 1}, {0, 17}, {17, 64}, {5, 6}, {63, 64}, {16, 48}, {1, 63}};

template <Side kSide, int d, int kBits>
void check_codes(Random& random) {
  CAPTURE(d);
  CAPTURE(kBits);
  for (const Span span : kSpans) {
    CAPTURE(span.first);
    CAPTURE(span.end);
    const Stage before(d, kBits, random), stage(d, kBits, random);
    std::vector<u32> plane =
        words_of(naive_codes(kSide, d, kBits, [&](TokenCoordinate c) { return before.at(c); }));
    const auto wanted = [&](TokenCoordinate c) {
      if (c.token >= span.end) return 0u;
      return c.token < span.first ? before.at(c) : stage.at(c);
    };
    write_codes<kSide, d, kBits>(stage.bytes(), plane.data(), span.first, span.end);
    CHECK(plane == words_of(naive_codes(kSide, d, kBits, wanted)));
    std::size_t misread = 0;
    for (int token = 0; token < kTileTokens; ++token) {
      for (int coordinate = 0; coordinate < d; ++coordinate)
        misread += read_code<kSide, d, kBits>(plane.data(), token, coordinate) != wanted({token, coordinate});
    }
    CHECK(misread == 0);
  }
}

// Where tables stand: at a multiple of 64 KB, or anywhere.
template <bool kAligned>
char* table_place() {
  return reinterpret_cast<char*>(dynamic_shared) + (kAligned ? kTablesAlignment : 3 * 128);
}

// Whether register a[i] of every lane's fragments holds the values of the codes that the layout puts there.
template <int d, int s, typename Value, typename Fragment>
std::size_t wrong_registers(Side side, const Value& value, const Fragment& fragment) {
  std::size_t wrong = 0;
  for (int lane = 0; lane < kLanes; ++lane) {
    threadIdx.x = static_cast<unsigned>(lane);
    for (int block = 0; block < d / kBlockCoordinates; ++block) {
      u32 a[4];
      fragment(block, lane, a);
      for (int i = 0; i < 4; ++i) {
        wrong += a[i] != pack_half2(value(at_place(side, block, lane, 4 * s + i, 0)),
                                    value(at_place(side, block, lane, 4 * s + i, 1)));
      }
    }
  }
  threadIdx.x = 0;
  return wrong;
}

template <Side kSide, int d, int kBits, bool kAligned>
void check_fragments(Random& random) {
  CAPTURE(d);
  CAPTURE(kBits);
  const Stage stage(d, kBits, random);
  const std::vector<std::uint8_t> plane =
      naive_codes(kSide, d, kBits, [&](TokenCoordinate c) { return stage.at(c); });
  std::vector<float> centroids;
  for (int i = 0; i < 1 << kBits; ++i)
    centroids.push_back(kBits == 8 ? static_cast<float>(i) - group_middle(8)
                                   : static_cast<float>(random.normal()));
  std::memset(dynamic_shared, 0xff, sizeof(dynamic_shared));  // not-a-number wherever nothing is written
  threadIdx.x = 0;
  using Tables = Lookup<kBits, kSide, kAligned>;
  char* tables = table_place<kAligned>();
  Tables::fill(tables, [&](u32 i) { return centroids[i]; });
  static_for<4>([&](auto s) {
    const auto value = [&](TokenCoordinate c) { return centroids[stage.at(c)]; };
    const auto fragment = [&](int block, int lane, u32(&a)[4]) {
      u32 words[lane_words(d, kBits)];
      load_words<true>(plane.data(), lane, words);
      Tables::template fragment<decltype(s)::value>(words + block * kBits, Tables::lane_address(tables), a);
    };
    CHECK(wrong_registers<d, decltype(s)::value>(kSide, value, fragment) == 0);
  });
}

template <int d, bool kAligned>
void check_sign_fragments(Random& random) {
  CAPTURE(d);
  const Stage stage(d, 1, random);
  const std::vector<std::uint8_t> plane =
      naive_codes(Side::keys, d, 1, [&](TokenCoordinate c) { return stage.at(c); });
  using Signs = SignLookup<kAligned>;
  char* tables = table_place<kAligned>();
  threadIdx.x = 0;
  Signs::fill(tables);
  static_for<4>([&](auto s) {
    const auto value = [&](TokenCoordinate c) { return stage.at(c) == 1 ? 1.0f : -1.0f; };
    const auto fragment = [&](int block, int lane, u32(&a)[4]) {
      u32 words[lane_words(d, 1)];
      load_words<false>(plane.data(), lane, words);
      Signs::template fragment<decltype(s)::value>(words[block], Signs::lane_address(tables), a);
    };
    CHECK(wrong_registers<d, decltype(s)::value>(Side::keys, value, fragment) == 0);
  });
}

template <int d>
void check_head_dim(Random& random) {
  static_for<4>([&](auto b) {
    constexpr int kBits = decltype(b)::value + 1;
    check_codes<Side::keys, d, kBits>(random);
    check_codes<Side::values, d, kBits>(random);
    check_fragments<Side::keys, d, kBits, true>(random);
    check_fragments<Side::values, d, kBits, true>(random);
    check_fragments<Side::values, d, kBits, false>(random);
  });
  check_codes<Side::values, d, 8>(random);
  check_fragments<Side::values, d, 8, true>(random);
  check_sign_fragments<d, true>(random);
  check_sign_fragments<d, false>(random);
}

}  // namespace

TEST_CASE("the device's words and fragments are those of the layout") {
  Random random = test_random(301);
  check_head_dim<64>(random);
  check_head_dim<80>(random);  // words of a lane that are no multiple of four
  check_head_dim<96>(random);
  check_head_dim<128>(random);
  check_head_dim<256>(random);
}

TEST_CASE("tables of keys and values share their rows") {
  // Filled one after the other, as attention does: neither may touch the other's half.
  std::memset(dynamic_shared, 0xff, sizeof(dynamic_shared));
  threadIdx.x = 0;
  char* tables = table_place<true>();
  Lookup<4, Side::keys, true>::fill(tables, [](u32 i) { return static_cast<float>(i); });
  Lookup<3, Side::values, true>::fill(tables, [](u32 i) { return -static_cast<float>(i); });
  Lookup<2, Side::values, true>::fill(tables, [](u32 i) { return -static_cast<float>(i); });
  SignLookup<true>::fill(tables);
  const auto row_words = [&](u32 row) { return reinterpret_cast<const u32*>(tables) + row * kLookupRow / 4; };
  std::size_t wrong = 0;
  for (u32 row = 0; row < 256; ++row) {
    for (int copy = 0; copy < kLanes; ++copy)
      wrong += row_words(row)[copy] != pack_half2(static_cast<float>(row % 16), static_cast<float>(row / 16));
  }
  CHECK(wrong == 0);
}

TEST_CASE("a head's tile, with pages and without") {
  std::vector<u8> memory(1 << 16);
  const int table[] = {7, 3, 5, 1, 0, 2};  // two sequences of three tiles
  const TileView paged{memory.data(), 4096, 512, 0, table, 3};
  CHECK(tile_at(paged, 1, 2, 0) == memory.data() + 1 * 4096 + 2 * 512);
  CHECK(tile_at(paged, 0, 1, 2) == memory.data() + 5 * 4096 + 512);
  const TileView flat{memory.data(), 4096, 512, 16384, nullptr, 0};
  CHECK(tile_at(flat, 2, 3, 1) == memory.data() + 2 * 16384 + 4096 + 3 * 512);
}

TEST_CASE("a range's tokens in a ring") {
  CHECK(source_slot({0, 10, 5, 0, 0}, 3) == 8);
  // Slots 4 .. 11, the first token in slot 10.
  const TokenRange ring{0, 8, 10, 8, 4};
  for (int i = 0; i < 8; ++i) CHECK(source_slot(ring, i) == 4 + (10 - 4 + i) % 8);
}
