#include "device/encode_halves.cuh"  // the device's code, on the host: on_host/device/ptx.cuh

#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <vector>

#include "core/half.h"
#include "core/packing.h"
#include "kernel_templates/quantiser_table.h"
#include "kernel_templates/tile_rows.h"
#include "tests/kernel_templates/specs.h"
#include "tests/support/reference.h"
#include "tests/support/test_seed.h"

using namespace tq::gpu;
using tq::KeyCodec;
using tq::Random;
using tq::test::normal_values;
using tq::test::test_random;

namespace {

constexpr int kPaddingRows = 3;  // of the input, between its rows

// Rows x d as an element type's bytes, padded to a stride.
struct Input {
  std::vector<Vector4> bytes;
  i64 stride;

  Input(const std::vector<float>& x, int d, Element element) : stride(d + kPaddingRows * 8) {
    const std::size_t rows = x.size() / static_cast<std::size_t>(d);
    const std::size_t size = static_cast<std::size_t>(element_bytes(element));
    bytes.resize(rows * static_cast<std::size_t>(stride) * size / 16, Vector4{{~0u, ~0u, ~0u, ~0u}});
    for (std::size_t i = 0; i < x.size(); ++i) {
      const std::size_t at = i / static_cast<std::size_t>(d) * static_cast<std::size_t>(stride) +
                             i % static_cast<std::size_t>(d);
      u16 bits = element == Element::f16 ? tq::float_to_half(x[i]) : tq::float_to_bfloat16(x[i]);
      std::memcpy(reinterpret_cast<char*>(bytes.data()) + at * size,
                  element == Element::f32 ? static_cast<const void*>(&x[i]) : &bits, size);
    }
  }
};

// What a cache holds of x that came as `element`.
std::vector<float> as_halves(std::vector<float> x, Element element) {
  for (float& value : x) {
    if (element == Element::bf16) value = tq::bfloat16_to_float(tq::float_to_bfloat16(value));
    value = tq::half_to_float(tq::float_to_half_saturate(value));
  }
  return x;
}

// One head's encoding with the device's code.
struct Encoder {
  KeySpec key;
  std::shared_ptr<const KeyCodec> codec;
  QuantiserTable table;

  explicit Encoder(const KeySpec& spec)
      : key(spec), codec(tq::test::codec_of(spec)), table(quantiser_table(codec->tables().codebook)) {}

  template <EncodeSpec kSpec>
  void encode(const Input& input, const TokenRange& range, std::vector<Vector4>& tiles,
              unsigned blocks) const {
    EncodeParams p{};
    p.x = {const_cast<Vector4*>(input.bytes.data()), 0, 0, input.stride};
    p.range = range;
    p.tables = &table;
    p.heads = 1;
    p.round_to_half = 1;
    p.rotation = {codec->rotation().signs().data(), nullptr, nullptr};
    p.tiles = {reinterpret_cast<u8*>(tiles.data()), tile_bytes(kSpec.key), 0, 0, nullptr, 0};
    run_grid(encode_halves<kSpec>, {blocks, 1, 1}, kEncodeThreads, p);
  }

  // Rows of the tiles, from token `first` on, that differ from core's by more than a code within 1e-6 of a
  // boundary or a unit in the last place of a scale.
  std::size_t wrong_rows(Side side, const std::vector<Vector4>& tiles, const std::vector<float>& x,
                         std::size_t first = 0) const {
    const std::size_t d = static_cast<std::size_t>(key.head_dim), rows = x.size() / d;
    const std::size_t code_bytes = tq::packed_bytes(d, key.table_bits);
    tq::EncodedKeys should;
    codec->encode(x.data(), rows, should);
    const tq::reference::Matrix rotation = tq::reference::dense(codec->rotation());
    std::vector<u8> codes(64 * code_bytes), a(d), b(d);
    std::vector<u16> scales(64);
    std::size_t wrong = 0;
    for (std::size_t row = 0; row < rows; ++row) {
      const std::size_t token = first + row;
      if (row == 0 || token % 64 == 0) {
        tile_to_keys(key, side, *codec,
                     reinterpret_cast<const u8*>(tiles.data()) +
                         token / 64 * static_cast<std::size_t>(tile_bytes(key)),
                     64, {codes.data(), scales.data(), nullptr, nullptr});
      }
      tq::unpack_codes(codes.data() + token % 64 * code_bytes, d, key.table_bits, a.data());
      tq::unpack_codes(should.codes.data() + row * code_bytes, d, key.table_bits, b.data());
      bool good = true;
      if (a != b) {
        const tq::reference::Vector y = tq::reference::rotated_direction(
            rotation, tq::reference::widen(std::span(x).subspan(row * d, d)));
        for (std::size_t j = 0; j < d; ++j) {
          good = good &&
                 (a[j] == b[j] || tq::reference::distance_to_boundary(codec->tables().codebook, y[j]) < 1e-6);
        }
      } else {
        good = std::abs(static_cast<int>(scales[token % 64]) - static_cast<int>(should.scales[row])) <= 1;
      }
      wrong += good ? 0 : 1;
    }
    return wrong;
  }

  std::vector<Vector4> poisoned(std::size_t rows) const {
    const std::size_t count = (rows + 63) / 64;
    return std::vector<Vector4>(count * static_cast<std::size_t>(tile_bytes(key)) / 16,
                                Vector4{{~0u, ~0u, ~0u, ~0u}});
  }
};

bool same(const std::vector<Vector4>& a, const std::vector<Vector4>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(Vector4)) == 0;
}

// Encodes at once, then in pieces: the same tiles, and core's codes.
template <EncodeSpec kSpec>
void check(Random& random) {
  const Encoder encoder(kSpec.key);
  CAPTURE(tq::test::text_of(kSpec.key));
  CAPTURE(static_cast<int>(kSpec.side));
  constexpr int kRows = 150, d = kSpec.key.head_dim;
  const std::vector<float> x =
      as_halves(normal_values(random, static_cast<std::size_t>(kRows * d)), kSpec.element);
  const Input input(x, d, kSpec.element);
  std::vector<Vector4> whole = encoder.poisoned(kRows), pieces = encoder.poisoned(kRows);
  encoder.encode<kSpec>(input, {0, kRows, 0, 0, 0}, whole, 2);
  CHECK(encoder.wrong_rows(kSpec.side, whole, x) == 0);
  int first = 0;
  for (const int cut : {5, 38, 128, kRows}) {
    encoder.encode<kSpec>(input, {first, cut - first, first, 0, 0}, pieces, 1);
    first = cut;
  }
  CHECK(same(whole, pieces));
}

constexpr KeySpec mse(int d, int bits, ScaleRule scale) {
  return {d, bits, false, scale, Mixing::hadamard, Mixing::hadamard};
}

}  // namespace

TEST_CASE("tiles from binary16 hold core's codes, however the tokens come") {
  Random random = test_random(311);
  check<EncodeSpec{mse(64, 2, ScaleRule::norm), Side::keys, Layout::tiles, Element::f16}>(random);
  check<EncodeSpec{mse(64, 3, ScaleRule::ls), Side::values, Layout::tiles, Element::f16}>(random);
  check<EncodeSpec{mse(64, 4, ScaleRule::nc), Side::keys, Layout::tiles, Element::bf16}>(random);
  check<EncodeSpec{mse(128, 2, ScaleRule::nc), Side::values, Layout::tiles, Element::f16}>(random);
  check<EncodeSpec{mse(128, 3, ScaleRule::nc), Side::keys, Layout::tiles, Element::f16}>(random);
  check<EncodeSpec{mse(128, 4, ScaleRule::norm), Side::values, Layout::tiles, Element::f32}>(random);
  check<EncodeSpec{mse(256, 3, ScaleRule::nc), Side::values, Layout::tiles, Element::f16}>(random);
  check<EncodeSpec{mse(256, 4, ScaleRule::ls), Side::keys, Layout::tiles, Element::f16}>(random);
}

TEST_CASE("a ring's tokens, and each sequence's own range in pages") {
  Random random = test_random(312);
  constexpr EncodeSpec kSpec{mse(64, 3, ScaleRule::nc), Side::values, Layout::tiles, Element::f16};
  const Encoder encoder(kSpec.key);
  constexpr int d = 64, kSlots = 100;
  const std::vector<float> x =
      as_halves(normal_values(random, static_cast<std::size_t>(2 * kSlots * d)), Element::f16);
  const Input input(x, d, Element::f16);
  const auto row = [&](int sequence, int slot) {
    const auto begin = x.begin() + (sequence * kSlots + slot) * d;
    return std::vector<float>(begin, begin + d);
  };
  // 70 tokens from slot 60 on, whose slots go on at 10; 30 tokens at the end of a tile; nothing.
  const TokenRange ranges[] = {{0, 70, 60, 90, 10}, {34, 30, 5, 0, 0}, {0, 0, 0, 0, 0}};
  const int pages[] = {3, 1, 2, 0, 4, 5};
  std::vector<Vector4> tiles = encoder.poisoned(6 * 64);
  EncodeParams p{};
  p.x = {const_cast<Vector4*>(input.bytes.data()), kSlots * input.stride, 0, input.stride};
  p.ranges = ranges;
  p.tables = &encoder.table;
  p.heads = 1;
  p.rotation = {encoder.codec->rotation().signs().data(), nullptr, nullptr};
  p.tiles = {reinterpret_cast<u8*>(tiles.data()), tile_bytes(kSpec.key), 0, 0, pages, 2};
  run_grid(encode_halves<kSpec>, {1, 1, 3}, kEncodeThreads, p);

  const std::size_t tile_size = static_cast<std::size_t>(tile_bytes(kSpec.key)) / 16;
  const auto tile = [&](int page) {
    const auto begin = tiles.begin() + static_cast<std::ptrdiff_t>(page * static_cast<int>(tile_size));
    return std::vector<Vector4>(begin, begin + static_cast<std::ptrdiff_t>(tile_size));
  };
  std::vector<float> first, second;
  for (int i = 0; i < 70; ++i) {
    const std::vector<float> token = row(0, 60 + i < 100 ? 60 + i : 60 + i - 90);
    first.insert(first.end(), token.begin(), token.end());
  }
  std::vector<Vector4> both = tile(3);
  const std::vector<Vector4> rest = tile(1);
  both.insert(both.end(), rest.begin(), rest.end());
  CHECK(encoder.wrong_rows(Side::values, both, first) == 0);
  for (int i = 0; i < 30; ++i) {
    const std::vector<float> token = row(1, 5 + i);
    second.insert(second.end(), token.begin(), token.end());
  }
  CHECK(encoder.wrong_rows(Side::values, tile(2), second, 34) == 0);
  for (const int untouched : {0, 4, 5}) CHECK(same(tile(untouched), encoder.poisoned(64)));
}

TEST_CASE("hard vectors of binary16 among others") {
  Random random = test_random(313);
  constexpr EncodeSpec kSpec{mse(128, 4, ScaleRule::nc), Side::keys, Layout::tiles, Element::f16};
  const Encoder encoder(kSpec.key);
  constexpr std::size_t d = 128, kRows = 64;
  std::vector<float> x = normal_values(random, kRows * d);
  const auto change = [&](std::size_t row, const auto& f) {
    for (std::size_t j = 0; j < d; ++j) x[row * d + j] = f(j, x[row * d + j]);
  };
  change(3, [](std::size_t, float) { return 0.0f; });
  change(10, [](std::size_t j, float v) { return j == 77 ? 60000.0f : 1e-4f * v; });
  change(20, [](std::size_t, float v) { return 1e-6f * v; });              // subnormal
  change(21, [](std::size_t j, float) { return j == 5 ? 6e-8f : 0.0f; });  // the smallest
  change(30, [](std::size_t, float v) { return v > 0 ? 65504.0f : -65504.0f; });
  change(31, [](std::size_t j, float v) { return j % 2 == 0 ? 30000.0f : 1e-3f * v; });
  x = as_halves(x, Element::f16);
  std::vector<float> broken = x;
  broken[40 * d + 9] = std::numeric_limits<float>::infinity();
  broken[41 * d] = std::numeric_limits<float>::quiet_NaN();
  broken[42 * d + 1] = -std::numeric_limits<float>::infinity();
  std::vector<Vector4> tiles = encoder.poisoned(kRows), others = tiles;
  encoder.encode<kSpec>(Input(x, d, Element::f16), {0, kRows, 0, 0, 0}, tiles, 1);
  CHECK(encoder.wrong_rows(Side::keys, tiles, x) == 0);
  encoder.encode<kSpec>(Input(broken, d, Element::f16), {0, kRows, 0, 0, 0}, others, 1);
  CHECK(encoder.wrong_rows(Side::keys, others, x) == 3);
}

TEST_CASE("a table whose boundaries crowd in a cell of the grid") {
  Random random = test_random(314);
  constexpr EncodeSpec kSpec{mse(64, 3, ScaleRule::ls), Side::keys, Layout::tiles, Element::f16};
  tq::KeyTables tables;
  tables.codebook.bits = 3;
  tables.codebook.boundaries = {-1, -0.5, -0.01, -0.009, 0, 0.001, 0.002, 0.4, 1};
  for (std::size_t i = 0; i < 8; ++i)
    tables.codebook.centroids.push_back((tables.codebook.boundaries[i] + tables.codebook.boundaries[i + 1]) /
                                        2);
  Encoder encoder(kSpec.key);
  encoder.codec = std::make_shared<const KeyCodec>(
      tq::test::config_of(kSpec.key), std::make_shared<const tq::Rotation>(encoder.codec->rotation()),
      nullptr, tables);
  encoder.table = quantiser_table(tables.codebook);
  REQUIRE(encoder.table.steps > 1);
  const std::vector<float> x = as_halves(normal_values(random, 64 * 64), Element::f16);
  std::vector<Vector4> tiles = encoder.poisoned(64);
  encoder.encode<kSpec>(Input(x, 64, Element::f16), {0, 64, 0, 0, 0}, tiles, 1);
  CHECK(encoder.wrong_rows(Side::keys, tiles, x) == 0);
}
