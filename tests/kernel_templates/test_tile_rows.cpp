#include <doctest/doctest.h>

#include <algorithm>
#include <cstdint>
#include <vector>

#include "kernel_templates/tile_rows.h"
#include "tests/kernel_templates/naive_tile.h"
#include "tests/kernel_templates/specs.h"
#include "tests/support/test_seed.h"

using namespace tq::gpu;
using tq::KeyCodec;
using tq::Random;
using tq::test::head_dims;
using tq::test::naive_tile;
using tq::test::test_random;

namespace {

constexpr int kRows[] = {0, 1, 17, 63, 64};

// An array between guards, full of a pattern that no test writes on purpose.
template <typename T>
class Guarded {
 public:
  explicit Guarded(int size) : values_(static_cast<std::size_t>(size + 2 * kGuard), kPattern) {}
  T* data() { return values_.data() + kGuard; }
  std::vector<T> inside() const { return {values_.begin() + kGuard, values_.end() - kGuard}; }
  bool guards_intact() const {
    const auto is_pattern = [](T value) { return value == kPattern; };
    return std::all_of(values_.begin(), values_.begin() + kGuard, is_pattern) &&
           std::all_of(values_.end() - kGuard, values_.end(), is_pattern);
  }
  void randomise(Random& random) {
    for (T* value = data(); value != values_.data() + values_.size() - kGuard; ++value)
      *value = static_cast<T>(random.bits32());
  }

 private:
  static constexpr int kGuard = 64;
  static constexpr T kPattern = static_cast<T>(0xa5c3);
  std::vector<T> values_;
};

struct Keys {
  Guarded<std::uint8_t> codes, signs;
  Guarded<std::uint16_t> scales, residual_norms;

  Keys(const KeySpec& spec, int rows)
      : codes(rows * spec.head_dim * spec.table_bits / 8),
        signs(spec.prod ? rows * spec.head_dim / 8 : 0),
        scales(rows),
        residual_norms(spec.prod ? rows : 0) {}
  tq::KeyBlock block(const KeySpec& spec) {
    if (!spec.prod) return {codes.data(), scales.data(), nullptr, nullptr};
    return {codes.data(), scales.data(), signs.data(), residual_norms.data()};
  }
  bool guards_intact() const {
    return codes.guards_intact() && signs.guards_intact() && scales.guards_intact() &&
           residual_norms.guards_intact();
  }
};

struct Groups {
  Guarded<std::uint8_t> codes;
  Guarded<std::uint16_t> zeros, scales;

  Groups(const GroupSpec& spec, int rows)
      : codes(rows * spec.head_dim * spec.bits / 8),
        zeros(rows * spec.head_dim / spec.group_size),
        scales(rows * spec.head_dim / spec.group_size) {}
  tq::GroupBlock block() { return {codes.data(), zeros.data(), scales.data()}; }
  bool guards_intact() const {
    return codes.guards_intact() && zeros.guards_intact() && scales.guards_intact();
  }
};

void check_keys(const KeySpec& spec, Side side, const KeyCodec& codec, int rows, Random& random) {
  Keys keys(spec, rows), back(spec, rows);
  keys.codes.randomise(random);
  keys.signs.randomise(random);
  keys.scales.randomise(random);
  keys.residual_norms.randomise(random);
  Guarded<std::uint8_t> tile(tile_bytes(spec));
  keys_to_tile(spec, side, codec, keys.block(spec), rows, tile.data());
  CHECK(tile.guards_intact());
  CHECK(tile.inside() == naive_tile(spec, side, codec, keys.block(spec), rows));
  tile_to_keys(spec, side, codec, tile.data(), rows, back.block(spec));
  CHECK(back.guards_intact());
  CHECK(back.codes.inside() == keys.codes.inside());
  CHECK(back.signs.inside() == keys.signs.inside());
  CHECK(back.scales.inside() == keys.scales.inside());
  CHECK(back.residual_norms.inside() == keys.residual_norms.inside());
}

}  // namespace

TEST_CASE("keys and rotated values: rows to tiles and back") {
  Random random = test_random(101);
  for (const int d : head_dims()) {
    for (const KeySpec& spec : tq::test::key_specs(d, 1)) {
      // Where codes lie does not depend on how scales came about.
      if (!spec.prod && spec.scale != ScaleRule::norm) continue;
      const auto codec = tq::test::codec_of(spec);
      for (const int rows : kRows) {
        CAPTURE(tq::test::text_of(spec));
        CAPTURE(rows);
        check_keys(spec, Side::keys, *codec, rows, random);
        if (!spec.prod) check_keys(spec, Side::values, *codec, rows, random);
      }
    }
  }
}

TEST_CASE("group values: rows to tiles and back") {
  Random random = test_random(102);
  for (const int d : head_dims()) {
    for (const GroupSpec& spec : tq::test::group_specs(d)) {
      for (const int rows : kRows) {
        CAPTURE(d);
        CAPTURE(spec.bits);
        CAPTURE(spec.group_size);
        CAPTURE(rows);
        Groups values(spec, rows), back(spec, rows);
        values.codes.randomise(random);
        values.zeros.randomise(random);
        values.scales.randomise(random);
        Guarded<std::uint8_t> tile(tile_bytes(spec));
        groups_to_tile(spec, values.block(), rows, tile.data());
        CHECK(tile.guards_intact());
        CHECK(tile.inside() == naive_tile(spec, values.block(), rows));
        tile_to_groups(spec, tile.data(), rows, back.block());
        CHECK(back.guards_intact());
        CHECK(back.codes.inside() == values.codes.inside());
        CHECK(back.zeros.inside() == values.zeros.inside());
        CHECK(back.scales.inside() == values.scales.inside());
      }
    }
  }
}
