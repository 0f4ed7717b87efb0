#include <doctest/doctest.h>

#include <random>
#include <string>
#include <vector>

#include "datasets/hdf5_storage.h"
#include "datasets/storage_message.h"
#include "tests/support/test_seed.h"

namespace hdf5 = tq::hdf5;

namespace {

hdf5::DatasetInfo example() {
  return {.kind = hdf5::ElementKind::bfloat16,
          .element_bytes = 2,
          .big_endian = true,
          .extents = {40, 2, 128},
          .chunk = {16, 1, 128},
          .filters = {{hdf5::FilterKind::shuffle, 2}, {hdf5::FilterKind::deflate, 0}},
          .stored_bytes = 12345};
}

// Everything that a message may hold, one after the other.
template <typename Archive>
bool read_all(Archive& reader) {
  bool flag = false;
  double number = 0;
  std::string text;
  std::vector<std::vector<std::size_t>> places;
  hdf5::DatasetInfo info;
  std::vector<hdf5::StoredChunk> chunks;
  reader(flag, number, text, places, info, chunks);
  return reader.finished();
}

std::string whole_message() {
  tq::hdf5::MessageWriter writer;
  writer(true, 0.1, std::string("caf\0\xc3", 5), std::vector<std::vector<std::size_t>>{{1, 2}, {}}, example(),
         std::vector<hdf5::StoredChunk>{{100, 1}, {200, 0}});
  return writer.bytes();
}

}  // namespace

TEST_CASE("values come out of a message as they went in") {
  tq::hdf5::MessageWriter writer;
  writer(std::string("caf\0\xc3", 5), example());
  tq::hdf5::MessageReader reader(writer.bytes());
  std::string text;
  hdf5::DatasetInfo info;
  reader(text, info);
  CHECK(reader.finished());
  CHECK(text == std::string("caf\0\xc3", 5));
  CHECK(info.kind == example().kind);
  CHECK(info.big_endian);
  CHECK(info.extents == example().extents);
  CHECK(info.chunk == example().chunk);
  REQUIRE(info.filters.size() == 2);
  CHECK(info.filters[0].kind == hdf5::FilterKind::shuffle);
  CHECK(info.filters[0].element_bytes == 2);
  CHECK(info.stored_bytes == 12345);
}

TEST_CASE("a message that is cut, or goes on, is not finished") {
  const std::string whole = whole_message();
  for (std::size_t size = 0; size <= whole.size(); ++size) {
    tq::hdf5::MessageReader reader(std::string_view(whole).substr(0, size));
    CHECK(read_all(reader) == (size == whole.size()));
  }
  const std::string longer = whole + '\0';
  tq::hdf5::MessageReader reader(longer);
  CHECK(!read_all(reader));
}

TEST_CASE("a message of any bytes is read within its bounds") {
  std::mt19937_64 random(tq::test::test_seed());
  const std::string whole = whole_message();
  for (int round = 0; round < 20000; ++round) {
    std::string damaged = whole;
    for (int i = 0; i < 1 + round % 4; ++i) damaged[random() % damaged.size()] = static_cast<char>(random());
    tq::hdf5::MessageReader reader(damaged);
    read_all(reader);  // sanitizers look on
  }
}
