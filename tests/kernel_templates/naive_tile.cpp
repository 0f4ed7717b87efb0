#include "tests/kernel_templates/naive_tile.h"

#include <span>

#include "tests/support/reference.h"

namespace tq::test {
namespace {

using Bytes = std::vector<std::uint8_t>;
constexpr int kTokens = 64, kLaneCount = 32, kPairs = 16;

// Every lane's words, of all blocks: groups of four of one lane after the other's, then the rest word by
// word.
Bytes emit(const std::vector<std::vector<std::uint32_t>>& lanes) {
  Bytes bytes;
  const auto put = [&](std::uint32_t word) {
    for (int k = 0; k < 4; ++k) bytes.push_back(static_cast<std::uint8_t>(word >> 8 * k));
  };
  std::size_t w = 0;
  for (; w + 4 <= lanes[0].size(); w += 4) {
    for (const auto& words : lanes) {
      for (std::size_t k = 0; k < 4; ++k) put(words[w + k]);
    }
  }
  for (; w < lanes[0].size(); ++w) {
    for (const auto& words : lanes) put(words[w]);
  }
  return bytes;
}

void append(Bytes& to, const Bytes& from) { to.insert(to.end(), from.begin(), from.end()); }
void append(Bytes& to, std::uint16_t half) {
  to.push_back(static_cast<std::uint8_t>(half));
  to.push_back(static_cast<std::uint8_t>(half >> 8));
}

// Codes of core's rows, [row][position].
std::vector<std::vector<int>> rows_of(const std::uint8_t* packed, int rows, int d, int bits) {
  std::vector<std::vector<int>> result;
  const std::size_t size = static_cast<std::size_t>(d), row_bytes = size * static_cast<std::size_t>(bits) / 8;
  for (int row = 0; row < rows; ++row)
    result.push_back(reference::unpack(
        std::span(packed + static_cast<std::size_t>(row) * row_bytes, row_bytes), size, bits));
  return result;
}

// Which of core's positions holds a coordinate: the permutation's inverse, or itself without one.
std::vector<std::size_t> positions(std::span<const std::uint16_t> permutation, int d) {
  std::vector<std::size_t> result(static_cast<std::size_t>(d));
  for (std::size_t i = 0; i < result.size(); ++i) result[permutation.empty() ? i : permutation[i]] = i;
  return result;
}

}  // namespace

TokenCoordinate at_place(gpu::Side side, int block, int lane, int pair, int j) {
  const int s = pair / 4, i = pair / 2 % 2, h = pair % 2, r = lane / 4, c = lane % 4;
  if (side == gpu::Side::keys) return {key_token(s, r, h), 16 * block + 4 * c + 2 * i + j};
  return {16 * s + 4 * c + 2 * i + j, 16 * block + 2 * r + h};
}

int key_token(int s, int r, int h) { return 16 * s + 4 * (r / 2) + r % 2 + 2 * h; }

Bytes naive_codes(gpu::Side side, int head_dim, int bits, const CodeOf& code) {
  std::vector<std::vector<std::uint32_t>> lanes(kLaneCount);
  for (int lane = 0; lane < kLaneCount; ++lane) {
    auto& words = lanes[static_cast<std::size_t>(lane)];
    for (int block = 0; block < head_dim / 16; ++block) {
      // A pair's codes side by side.
      std::vector<std::uint32_t> pairs;
      for (int pair = 0; pair < kPairs; ++pair)
        pairs.push_back(code(at_place(side, block, lane, pair, 0)) |
                        code(at_place(side, block, lane, pair, 1)) << bits);
      if (bits == 3) {
        // Three words of four pairs, each with two bits of each of the last four.
        for (std::size_t w = 0; w < 3; ++w) {
          std::uint32_t word = 0;
          for (std::size_t n = 0; n < 4; ++n)
            word |= (pairs[4 * w + n] | (pairs[12 + n] >> 2 * w & 3u) << 6) << 8 * n;
          words.push_back(word);
        }
        continue;
      }
      // One long string of bits; it fills whole words.
      int filled = 32;
      for (const std::uint32_t pair : pairs) {
        for (int k = 0; k < 2 * bits; ++k) {
          if (filled == 32) words.push_back(0), filled = 0;
          words.back() |= (pair >> k & 1u) << filled++;
        }
      }
    }
  }
  return emit(lanes);
}

Bytes naive_tile(const gpu::KeySpec& spec, gpu::Side side, const KeyCodec& codec, const ConstKeyBlock& keys,
                 int rows) {
  const auto lookup = [rows](const std::vector<std::vector<int>>& codes,
                             const std::vector<std::size_t>& position) {
    return [&codes, &position, rows](TokenCoordinate at) {
      if (at.token >= rows) return 0u;
      return static_cast<std::uint32_t>(
          codes[static_cast<std::size_t>(at.token)][position[static_cast<std::size_t>(at.coordinate)]]);
    };
  };
  // A lane's scalars: sub-tile by sub-tile, its two rows; the four lanes of a row share them.
  const auto scalars = [rows](const std::uint16_t* values) {
    Bytes bytes;
    for (int r = 0; r < 8; ++r) {
      for (int s = 0; s < 4; ++s) {
        for (int h = 0; h < 2; ++h) {
          const int token = key_token(s, r, h);
          append(bytes, token < rows ? values[token] : std::uint16_t{0});
        }
      }
    }
    return bytes;
  };
  const int d = spec.head_dim;
  const auto codes = rows_of(keys.codes, rows, d, spec.table_bits);
  const auto position = positions(codec.rotation().permutation(), d);
  Bytes tile = naive_codes(side, d, spec.table_bits, lookup(codes, position));
  append(tile, scalars(keys.scales));
  if (!spec.prod) return tile;
  const auto signs = rows_of(keys.signs, rows, d, 1);
  const auto sign_position =
      positions(spec.sketch == gpu::Mixing::hadamard ? codec.sketch()->rht().permutation()
                                                     : std::span<const std::uint16_t>{},
                d);
  append(tile, naive_codes(gpu::Side::keys, d, 1, lookup(signs, sign_position)));
  append(tile, scalars(keys.residual_norms));
  return tile;
}

Bytes naive_tile(const gpu::GroupSpec& spec, const ConstGroupBlock& values, int rows) {
  const int groups = spec.head_dim / spec.group_size;
  const auto codes = rows_of(values.codes, rows, spec.head_dim, spec.bits);
  Bytes tile = naive_codes(gpu::Side::values, spec.head_dim, spec.bits, [&](TokenCoordinate at) {
    if (at.token >= rows) return 0u;
    return static_cast<std::uint32_t>(
        codes[static_cast<std::size_t>(at.token)][static_cast<std::size_t>(at.coordinate)]);
  });
  for (const std::uint16_t* scalars : {values.zeros, values.scales}) {
    for (int group = 0; group < groups; ++group) {
      for (int token = 0; token < kTokens; ++token)
        append(tile, token < rows ? scalars[token * groups + group] : std::uint16_t{0});
    }
  }
  return tile;
}

}  // namespace tq::test
