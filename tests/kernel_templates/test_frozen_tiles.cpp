#include <doctest/doctest.h>
#include <fmt/format.h>

#include <algorithm>
#include <cstdint>
#include <memory>
#include <vector>

#include "kernel_templates/tile_rows.h"
#include "tests/kernel_templates/specs.h"
#include "tests/support/exact_inputs.h"
#include "tests/support/golden.h"

using namespace tq::gpu;
using tq::KeyCodec;
using tq::Rotation;
using tq::Sketch;
using tq::test::ByteString;
using tq::test::GoldenDigests;

// Tiles live in a GPU's memory and in no file, so they have no version: kernels, host and whoever reads a
// cache's memory agree on them. Who moves them raises the number below, and checks every kernel that reads
// them.

namespace {

constexpr int kVersion = 2, kRows = 61;

template <typename T>
std::vector<T> exact_bits(std::uint64_t seed, int count) {
  tq::test::ExactNumbers numbers(seed);
  std::vector<T> bits(static_cast<std::size_t>(count));
  for (T& value : bits) value = static_cast<T>(numbers.bits64());
  return bits;
}

std::shared_ptr<const KeyCodec> exact_codec(const KeySpec& spec) {
  const auto d = static_cast<std::size_t>(spec.head_dim);
  const tq::KeyConfig config = tq::test::config_of(spec);
  auto rotation = spec.rotation == Mixing::dense ? tq::test::exact_dense_rotation(d)
                                                 : Rotation::make(tq::RotationKind::rht, spec.head_dim, 1);
  auto sketch = Sketch::make(config.sketch, spec.head_dim, 2);
  return std::make_shared<const KeyCodec>(
      config, std::make_shared<const Rotation>(std::move(rotation)),
      std::make_shared<const Sketch>(std::move(sketch)),
      tq::KeyTables{tq::test::exact_codebook(spec.table_bits), spec.prod ? 0.75 : 0.0});
}

void check_keys(GoldenDigests& golden, const KeySpec& spec, Side side) {
  auto codes = exact_bits<std::uint8_t>(1, kRows * spec.head_dim * spec.table_bits / 8),
       signs = exact_bits<std::uint8_t>(2, kRows * spec.head_dim / 8);
  auto scales = exact_bits<std::uint16_t>(3, kRows), residual_norms = exact_bits<std::uint16_t>(4, kRows);
  const tq::KeyBlock keys{codes.data(), scales.data(), spec.prod ? signs.data() : nullptr,
                          spec.prod ? residual_norms.data() : nullptr};
  std::vector<std::uint8_t> tile(static_cast<std::size_t>(tile_bytes(spec)));
  keys_to_tile(spec, side, *exact_codec(spec), keys, kRows, tile.data());
  golden.check(fmt::format("tile {}, {} {}", kVersion, side == Side::keys ? "keys" : "values",
                           tq::test::text_of(spec)),
               ByteString().add(tile).text());
}

}  // namespace

TEST_CASE("frozen: tiles of keys and rotated values") {
  GoldenDigests golden("tiles");
  constexpr auto kHadamard = Mixing::hadamard, kDense = Mixing::dense;
  for (int bits = 1; bits <= 4; ++bits) {
    for (const Side side : {Side::keys, Side::values})
      check_keys(golden, {64, bits, false, ScaleRule::nc, kHadamard, kHadamard}, side);
    check_keys(golden, {64, bits, true, ScaleRule::norm, kHadamard, kHadamard}, Side::keys);
  }
  check_keys(golden, {64, 2, true, ScaleRule::norm, kDense, kDense}, Side::keys);
  for (const int d : {80, 96, 128, 192, 256}) {
    check_keys(golden, {d, 3, true, ScaleRule::norm, kHadamard, kHadamard}, Side::keys);
    check_keys(golden, {d, 3, false, ScaleRule::norm, kHadamard, kHadamard}, Side::values);
  }
}

TEST_CASE("frozen: tiles of group values") {
  GoldenDigests golden("tiles");
  const auto check = [&](const GroupSpec& spec) {
    const int groups = spec.head_dim / spec.group_size;
    auto codes = exact_bits<std::uint8_t>(5, kRows * spec.head_dim * spec.bits / 8);
    auto zeros = exact_bits<std::uint16_t>(6, kRows * groups),
         scales = exact_bits<std::uint16_t>(7, kRows * groups);
    std::vector<std::uint8_t> tile(static_cast<std::size_t>(tile_bytes(spec)));
    groups_to_tile(spec, tq::GroupBlock{codes.data(), zeros.data(), scales.data()}, kRows, tile.data());
    golden.check(fmt::format("tile {}, values group{}-gs{} of {}", kVersion, spec.bits, spec.group_size,
                             spec.head_dim),
                 ByteString().add(tile).text());
  };
  for (const int bits : {2, 3, 4, 8}) {
    for (const int size : {16, 32}) check({64, bits, size});
  }
  for (const int d : {80, 96, 128, 192, 256}) check({d, 3, 16});
}
