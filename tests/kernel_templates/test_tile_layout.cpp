#include <doctest/doctest.h>

#include <array>
#include <set>
#include <vector>

#include "core/codec_config.h"
#include "shared/tile_layout.h"
#include "tests/kernel_templates/naive_tile.h"
#include "tests/kernel_templates/specs.h"

using namespace tq::gpu;
using tq::test::at_place;
using tq::test::head_dims;
using tq::test::key_token;
using tq::test::TokenCoordinate;

namespace {

// m16n8k16 for .f16 as the PTX manual has it ("Matrix Fragments for mma.m16n8k16 with floating point type"):
// element i of a lane's fragment, i as in a0 .. a7; a register holds two elements.
struct Entry {
  int row, column;
};
Entry a_entry(int lane, int i) {
  const int group = lane >> 2, thread = lane % 4;
  const int row = (0 <= i && i < 2) || (4 <= i && i < 6) ? group : group + 8;
  const int column = i < 4 ? thread * 2 + (i & 1) : thread * 2 + (i & 1) + 8;
  return {row, column};
}
Entry b_entry(int lane, int i) {
  const int group = lane >> 2, thread = lane % 4;
  return {i < 2 ? thread * 2 + (i & 1) : thread * 2 + (i & 1) + 8, group};
}
Entry c_entry(int lane, int i) {
  const int group = lane >> 2, thread = lane % 4;
  return {i < 2 ? group : group + 8, thread * 2 + (i & 1)};
}

// The fragment that kernels make of sub-tile s of a block: its four registers are pairs 4 s .. 4 s + 3. So
// element i of A is:
TokenCoordinate fed(Side side, int block, int s, int lane, int i) {
  return at_place(side, block, lane, 4 * s + i / 2, i % 2);
}

}  // namespace

TEST_CASE("places of codes are a bijection, and the one of the comment") {
  for (const Side side : {Side::keys, Side::values}) {
    for (const int d : head_dims()) {
      std::set<std::array<int, 4>> places;
      for (int token = 0; token < kTileTokens; ++token) {
        for (int coordinate = 0; coordinate < d; ++coordinate) {
          const CodePlace place = code_place(side, token, coordinate);
          REQUIRE(place.block >= 0);
          REQUIRE(place.block < d / kBlockCoordinates);
          REQUIRE(place.lane >= 0);
          REQUIRE(place.lane < kLanes);
          REQUIRE(place.pair >= 0);
          REQUIRE(place.pair < 16);
          REQUIRE(place.j >= 0);
          REQUIRE(place.j < 2);
          places.insert({place.block, place.lane, place.pair, place.j});
          REQUIRE(at_place(side, place.block, place.lane, place.pair, place.j) ==
                  TokenCoordinate{token, coordinate});
        }
      }
      CHECK(places.size() == static_cast<std::size_t>(kTileTokens * d));
    }
  }
}

TEST_CASE("words of lanes fill their plane, 16 bytes a lane at a time") {
  for (const int d : head_dims()) {
    for (const int bits : {1, 2, 3, 4, 8}) {
      const int words = lane_words(d, bits);
      REQUIRE(words * kLanes * 4 == code_plane_bytes(d, bits));
      std::set<int> indices;
      for (int lane = 0; lane < kLanes; ++lane) {
        for (int w = 0; w < words; ++w) {
          const int index = word_index(words, lane, w);
          REQUIRE(index >= 0);
          REQUIRE(index < words * kLanes);
          indices.insert(index);
          if (w % 4 != 0 || w + 4 > words) continue;
          REQUIRE(index % 4 == 0);
          for (int k = 1; k < 4; ++k) REQUIRE(word_index(words, lane, w + k) == index + k);
        }
      }
      CHECK(indices.size() == static_cast<std::size_t>(words * kLanes));
    }
  }
}

TEST_CASE("scalars stand where the lanes of a score fragment read them") {
  std::set<int> places;
  for (int token = 0; token < kTileTokens; ++token) places.insert(scale_place(token));
  CHECK(places.size() == kTileTokens);
  CHECK(*places.begin() == 0);
  CHECK(*places.rbegin() == kTileTokens - 1);
  // A lane reads 16 bytes at row r's: element i of its C fragment of sub-tile s takes the scalar 2 s + i / 2.
  for (int lane = 0; lane < kLanes; ++lane) {
    for (int s = 0; s < 4; ++s) {
      for (int i = 0; i < 4; ++i) {
        const int row = c_entry(lane, i).row, token = key_token(s, row % 8, row / 8);
        CHECK(scale_place(token) == lane / 4 * 8 + 2 * s + i / 2);
      }
    }
  }
}

TEST_CASE("bits of codes fill the words of a lane and block, those of a byte's codes the byte") {
  for (const int bits : {1, 2, 3, 4, 8}) {
    CAPTURE(bits);
    std::set<int> places;
    for (int pair = 0; pair < 16; ++pair) {
      for (int j = 0; j < 2; ++j) {
        for (int k = 0; k < bits; ++k) {
          const int bit = code_bit(bits, pair, j, k);
          places.insert(bit);
          if (bits == 4 || (bits == 3 && pair < 12)) CHECK(bit / 8 == pair);
        }
      }
    }
    CHECK(places.size() == static_cast<std::size_t>(32 * bits));
    CHECK(*places.begin() == 0);
    CHECK(*places.rbegin() == 32 * bits - 1);
  }
}

TEST_CASE("a tile takes as many bytes as core's rows, and its planes are aligned") {
  for (const int d : head_dims()) {
    for (const KeySpec& spec : tq::test::key_specs(d, 1)) {
      CAPTURE(tq::test::text_of(spec));
      CHECK(tile_bytes(spec) == 64 * tq::bytes_per_token(tq::test::config_of(spec), d));
      CHECK(tile_scales_offset(spec) % 16 == 0);
      CHECK(tile_signs_offset(spec) % 16 == 0);
      CHECK(tile_bytes(spec) % 16 == 0);
      if (spec.prod) {
        CHECK(tile_residuals_offset(spec) % 16 == 0);
        continue;
      }
      const ValueSpec value{true, spec, {}};
      CHECK(tile_bytes(value) == 64 * tq::bytes_per_token(tq::test::rotated_config_of(spec), d));
    }
    for (const GroupSpec& spec : tq::test::group_specs(d)) {
      CAPTURE(d);
      CAPTURE(spec.bits);
      CAPTURE(spec.group_size);
      CHECK(tile_bytes(ValueSpec{false, {}, spec}) == 64 * tq::bytes_per_token(tq::test::config_of(spec), d));
      CHECK(tile_zeros_offset(spec) % 16 == 0);
      CHECK(tile_scales_offset(spec) % 16 == 0);
      CHECK(tile_bytes(spec) % 16 == 0);
    }
  }
}

TEST_CASE("a lane's units are its fragment A of one matrix a sub-tile") {
  for (const Side side : {Side::keys, Side::values}) {
    for (int s = 0; s < 4; ++s) {
      // What rows and columns of the 16 x 16 matrix stand for may not depend on the lane that holds an
      // element.
      std::array<int, 16> of_row{}, of_column{};
      of_row.fill(-1);
      of_column.fill(-1);
      for (int lane = 0; lane < kLanes; ++lane) {
        for (int i = 0; i < 8; ++i) {
          const TokenCoordinate at = fed(side, 0, s, lane, i);
          const int of_this_row = side == Side::keys ? at.token : at.coordinate;
          const int of_this_column = side == Side::keys ? at.coordinate : at.token;
          int& row = of_row[static_cast<std::size_t>(a_entry(lane, i).row)];
          int& column = of_column[static_cast<std::size_t>(a_entry(lane, i).column)];
          if (row == -1) row = of_this_row;
          if (column == -1) column = of_this_column;
          CHECK(row == of_this_row);
          CHECK(column == of_this_column);
        }
      }
      const int tokens_from = 16 * s;
      std::set<int> rows(of_row.begin(), of_row.end()), columns(of_column.begin(), of_column.end());
      REQUIRE(rows.size() == 16);
      REQUIRE(columns.size() == 16);
      CHECK(*rows.begin() == (side == Side::keys ? tokens_from : 0));
      CHECK(*columns.begin() == (side == Side::keys ? 0 : tokens_from));
    }
  }
}

TEST_CASE("queries meet the coordinates that keys' columns stand for") {
  // A lane's fragment B of block b and head r: codes' order, coordinates 16 b + 4 c + j, j = 0 .. 3 its
  // elements.
  for (int lane = 0; lane < kLanes; ++lane) {
    for (int i = 0; i < 4; ++i) {
      const int k = b_entry(lane, i).row, query_coordinate = 4 * (lane % 4) + i;
      CHECK(b_entry(lane, i).column == lane / 4);
      for (int other = 0; other < kLanes; ++other) {
        for (int e = 0; e < 8; ++e) {
          if (a_entry(other, e).column == k)
            CHECK(fed(Side::keys, 0, 0, other, e).coordinate == query_coordinate);
        }
      }
    }
  }
}

TEST_CASE("scores, transposed by movmatrix, are the fragment B of the values' product") {
  for (int s = 0; s < 4; ++s) {
    // Tokens of the rows of the values' B operand, from their A operand's columns.
    std::array<int, 16> token_of_k{};
    for (int lane = 0; lane < kLanes; ++lane) {
      for (int i = 0; i < 8; ++i)
        token_of_k[static_cast<std::size_t>(a_entry(lane, i).column)] =
            fed(Side::values, 0, s, lane, i).token;
    }
    // C's two registers of row r + 8 h are an 8 x 8 matrix of a row a group of four lanes, two elements a
    // lane. movmatrix.trans: lane 4 r + c receives elements 2 c and 2 c + 1 of the transposed matrix's row r.
    for (int h = 0; h < 2; ++h) {
      std::array<std::array<TokenCoordinate, 8>, 8> matrix{};  // [row][column]: token and head
      for (int lane = 0; lane < kLanes; ++lane) {
        for (int e = 0; e < 2; ++e) {
          const Entry at = c_entry(lane, 2 * h + e);
          matrix[static_cast<std::size_t>(lane / 4)][static_cast<std::size_t>(lane % 4 * 2 + e)] = {
              key_token(s, at.row % 8, at.row / 8), at.column};
        }
      }
      for (int lane = 0; lane < kLanes; ++lane) {
        for (int e = 0; e < 2; ++e) {
          const TokenCoordinate got =
              matrix[static_cast<std::size_t>(lane % 4 * 2 + e)][static_cast<std::size_t>(lane / 4)];
          const Entry wanted = b_entry(lane, 2 * h + e);
          CHECK(got.token == token_of_k[static_cast<std::size_t>(wanted.row)]);
          CHECK(got.coordinate == wanted.column);
        }
      }
    }
  }
}
