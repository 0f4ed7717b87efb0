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

  // Rows of the tiles that differ from core's by more than a code within 1e-6 of a boundary or a unit in the
  // last place of a scale.
  std::size_t wrong_rows(Side side, const std::vector<Vector4>& tiles, const std::vector<float>& x) const {
    const std::size_t d = static_cast<std::size_t>(key.head_dim), rows = x.size() / d;
    const std::size_t code_bytes = tq::packed_bytes(d, key.table_bits);
    tq::EncodedKeys should;
    codec->encode(x.data(), rows, should);
    const tq::reference::Matrix rotation = tq::reference::dense(codec->rotation());
    std::vector<u8> codes(64 * code_bytes), a(d), b(d);
    std::vector<u16> scales(64);
    std::size_t wrong = 0;
    for (std::size_t row = 0; row < rows; ++row) {
      if (row % 64 == 0) {
        tile_to_keys(
            key, side, *codec,
            reinterpret_cast<const u8*>(tiles.data()) + row / 64 * static_cast<std::size_t>(tile_bytes(key)),
            64, {codes.data(), scales.data(), nullptr, nullptr});
      }
      tq::unpack_codes(codes.data() + row % 64 * code_bytes, d, key.table_bits, a.data());
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
        good = std::abs(static_cast<int>(scales[row % 64]) - static_cast<int>(should.scales[row])) <= 1;
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
