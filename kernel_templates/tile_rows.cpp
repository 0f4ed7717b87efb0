#include "kernel_templates/tile_rows.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "core/packing.h"

namespace tq::gpu {
namespace {

// A plane of little-endian words, read and written bit by bit: this is for saving and for tests, not for
// speed.
class Plane {
 public:
  Plane(u8* bytes, int head_dim, int bits) : bytes_(bytes), words_(lane_words(head_dim, bits)), bits_(bits) {}

  void set(const CodePlace& place, u32 code) {
    for (int k = 0; k < bits_; ++k) flip(place, k, (code >> k & 1u) != 0);
  }
  u32 get(const CodePlace& place) const {
    u32 code = 0;
    for (int k = 0; k < bits_; ++k) {
      const auto [byte, bit] = where(place, k);
      code |= static_cast<u32>(bytes_[byte] >> bit & 1u) << k;
    }
    return code;
  }

 private:
  struct Where {
    int byte, bit;
  };
  Where where(const CodePlace& place, int k) const {
    const int bit = code_bit(bits_, place.pair, place.j, k);
    const int word = word_index(words_, place.lane, place.block * bits_ + bit / 32);
    return {word * 4 + bit % 32 / 8, bit % 8};
  }
  void flip(const CodePlace& place, int k, bool one) {
    const auto [byte, bit] = where(place, k);
    bytes_[byte] = static_cast<u8>((bytes_[byte] & ~(1u << bit)) | (one ? 1u << bit : 0u));
  }

  u8* bytes_;
  int words_, bits_;
};

u16 half_at(const u8* plane, int index) {
  u16 value;
  std::memcpy(&value, plane + 2 * index, 2);
  return value;
}
void set_half(u8* plane, int index, u16 value) { std::memcpy(plane + 2 * index, &value, 2); }

// Coordinate before the permutation of core's i-th code.
int coordinate_of(const KeyCodec& codec, int i) {
  const auto permutation = codec.rotation().permutation();
  return permutation.empty() ? i : permutation[static_cast<std::size_t>(i)];
}
int sign_coordinate_of(const KeyCodec& codec, int i) {
  if (codec.sketch()->kind() == SketchKind::gaussian) return i;
  return codec.sketch()->rht().permutation()[static_cast<std::size_t>(i)];
}

}  // namespace

void keys_to_tile(const KeySpec& spec, Side side, const KeyCodec& codec, const ConstKeyBlock& keys, int rows,
                  u8* tile) {
  const int d = spec.head_dim;
  const std::size_t size = static_cast<std::size_t>(d), code_bytes = packed_bytes(size, spec.table_bits);
  std::fill_n(tile, tile_bytes(spec), u8{0});
  Plane plane(tile, d, spec.table_bits);
  Plane signs(tile + tile_signs_offset(spec), d, 1);
  std::vector<std::uint8_t> codes(size);
  for (int t = 0; t < rows; ++t) {
    const std::size_t row = static_cast<std::size_t>(t);
    unpack_codes(keys.codes + row * code_bytes, size, spec.table_bits, codes.data());
    for (int i = 0; i < d; ++i)
      plane.set(code_place(side, t, coordinate_of(codec, i)), codes[static_cast<std::size_t>(i)]);
    set_half(tile + tile_scales_offset(spec), scale_place(t), keys.scales[row]);
    if (!spec.prod) continue;
    unpack_codes(keys.signs + row * (size / 8), size, 1, codes.data());
    for (int i = 0; i < d; ++i)
      signs.set(code_place(side, t, sign_coordinate_of(codec, i)), codes[static_cast<std::size_t>(i)]);
    set_half(tile + tile_residuals_offset(spec), scale_place(t), keys.residual_norms[row]);
  }
}

void tile_to_keys(const KeySpec& spec, Side side, const KeyCodec& codec, const u8* tile, int rows,
                  const KeyBlock& keys) {
  const int d = spec.head_dim;
  const std::size_t size = static_cast<std::size_t>(d), code_bytes = packed_bytes(size, spec.table_bits);
  const Plane plane(const_cast<u8*>(tile), d, spec.table_bits);
  const Plane signs(const_cast<u8*>(tile) + tile_signs_offset(spec), d, 1);
  std::vector<std::uint8_t> codes(size);
  for (int t = 0; t < rows; ++t) {
    const std::size_t row = static_cast<std::size_t>(t);
    for (int i = 0; i < d; ++i) {
      codes[static_cast<std::size_t>(i)] =
          static_cast<std::uint8_t>(plane.get(code_place(side, t, coordinate_of(codec, i))));
    }
    pack_codes(codes.data(), size, spec.table_bits, keys.codes + row * code_bytes);
    keys.scales[row] = half_at(tile + tile_scales_offset(spec), scale_place(t));
    if (!spec.prod) continue;
    for (int i = 0; i < d; ++i) {
      codes[static_cast<std::size_t>(i)] =
          static_cast<std::uint8_t>(signs.get(code_place(side, t, sign_coordinate_of(codec, i))));
    }
    pack_codes(codes.data(), size, 1, keys.signs + row * (size / 8));
    keys.residual_norms[row] = half_at(tile + tile_residuals_offset(spec), scale_place(t));
  }
}

void groups_to_tile(const GroupSpec& spec, const ConstGroupBlock& values, int rows, u8* tile) {
  const int d = spec.head_dim, groups = d / spec.group_size;
  const std::size_t size = static_cast<std::size_t>(d), code_bytes = packed_bytes(size, spec.bits);
  std::fill_n(tile, tile_bytes(spec), u8{0});
  Plane plane(tile, d, spec.bits);
  std::vector<std::uint8_t> codes(size);
  for (int t = 0; t < rows; ++t) {
    const std::size_t row = static_cast<std::size_t>(t);
    unpack_codes(values.codes + row * code_bytes, size, spec.bits, codes.data());
    for (int i = 0; i < d; ++i) plane.set(code_place(Side::values, t, i), codes[static_cast<std::size_t>(i)]);
    for (int g = 0; g < groups; ++g) {
      const std::size_t from = row * static_cast<std::size_t>(groups) + static_cast<std::size_t>(g);
      set_half(tile + tile_zeros_offset(spec), g * kTileTokens + t, values.zeros[from]);
      set_half(tile + tile_scales_offset(spec), g * kTileTokens + t, values.scales[from]);
    }
  }
}

void tile_to_groups(const GroupSpec& spec, const u8* tile, int rows, const GroupBlock& values) {
  const int d = spec.head_dim, groups = d / spec.group_size;
  const std::size_t size = static_cast<std::size_t>(d), code_bytes = packed_bytes(size, spec.bits);
  const Plane plane(const_cast<u8*>(tile), d, spec.bits);
  std::vector<std::uint8_t> codes(size);
  for (int t = 0; t < rows; ++t) {
    const std::size_t row = static_cast<std::size_t>(t);
    for (int i = 0; i < d; ++i) {
      codes[static_cast<std::size_t>(i)] =
          static_cast<std::uint8_t>(plane.get(code_place(Side::values, t, i)));
    }
    pack_codes(codes.data(), size, spec.bits, values.codes + row * code_bytes);
    for (int g = 0; g < groups; ++g) {
      const std::size_t to = row * static_cast<std::size_t>(groups) + static_cast<std::size_t>(g);
      values.zeros[to] = half_at(tile + tile_zeros_offset(spec), g * kTileTokens + t);
      values.scales[to] = half_at(tile + tile_scales_offset(spec), g * kTileTokens + t);
    }
  }
}

}  // namespace tq::gpu
