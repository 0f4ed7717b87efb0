#include <doctest/doctest.h>

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "core/error.h"
#include "datasets/hdf5.h"

namespace hdf5 = tq::hdf5;

namespace {

std::string path_of(const std::string& name) {
  std::filesystem::create_directories(TQ_WRITTEN);
  return std::string(TQ_WRITTEN) + "/" + name;
}

template <typename T>
void check_array(const hdf5::Object& root, const std::string& name, const std::vector<T>& values) {
  hdf5::write_array(root, name, {2, values.size() / 2}, values);
  const auto read = hdf5::read_array<T>(root, name, {2, hdf5::kAnyExtent}, values.size());
  CHECK(read.values == values);
  CHECK(read.extents == hdf5::Extents{2, values.size() / 2});
}

}  // namespace

TEST_CASE("attributes and arrays come back as they were written") {
  const std::string path = path_of("kinds.h5");
  {
    hdf5::File file = hdf5::create_for_writing(path, path);
    hdf5::Object group = hdf5::create_group(file.root(), "group");
    hdf5::write_attribute(group, "text", "caf\xc3\xa9");
    hdf5::write_attribute(group, "empty", "");
    hdf5::write_attribute(group, "count", std::int64_t{-1} << 62);
    hdf5::write_attribute(group, "scale", 0.1);
    group = {};
    file.close();
  }
  {
    const hdf5::File file = hdf5::open_for_reading(path);
    const hdf5::Object group = hdf5::open_group(file.root(), "group");
    CHECK(hdf5::read_string_attribute(group, "text") == "caf\xc3\xa9");
    CHECK(hdf5::read_string_attribute(group, "empty").empty());
    CHECK(hdf5::read_int64_attribute(group, "count") == std::int64_t{-1} << 62);
    CHECK(hdf5::read_double_attribute(group, "scale") == 0.1);
    CHECK(hdf5::has_attribute(group, "scale"));
    CHECK(!hdf5::has_attribute(group, "other"));
    CHECK(hdf5::child_names(file.root()) == std::vector<std::string>{"group"});
    CHECK(!hdf5::has_child(file.root(), "group/none"));
    CHECK_THROWS_WITH_AS(hdf5::read_int64_attribute(group, "text"),
                         (path + ": /group: attribute 'text' must be an integer").c_str(), tq::InputError);
    CHECK_THROWS_AS(hdf5::read_string_attribute(group, "other"), tq::InputError);
    CHECK_THROWS_AS(hdf5::open_group(file.root(), "group/.."), tq::InputError);
    CHECK_THROWS_AS(hdf5::open_group(file.root(), "."), tq::InputError);
    CHECK_THROWS_AS(hdf5::open_group(file.root(), "group/"), tq::InputError);
    CHECK_THROWS_AS(hdf5::child_names(file.root(), 0), tq::InputError);
  }
  const hdf5::File file = hdf5::create_for_writing(path_of("arrays.h5"), "arrays.h5");
  check_array<float>(file.root(), "f32", {1.5f, -2, 3, 4});
  check_array<double>(file.root(), "f64", {0.1, 0.2, 0.3, 0.4, 0.5, 0.6});
  check_array<std::uint8_t>(file.root(), "u8", {0, 255});
  check_array<std::uint16_t>(file.root(), "u16", {0, 65535, 1, 2});
  check_array<std::int32_t>(file.root(), "i32", {-2147483647, 5});
}

TEST_CASE("an array of another type, shape or size is refused") {
  const hdf5::File file = hdf5::create_for_writing(path_of("refused.h5"), "refused.h5");
  hdf5::write_array<float>(file.root(), "x", {2, 2}, {1, 2, 3, 4});
  CHECK_THROWS_WITH_AS(hdf5::read_array<double>(file.root(), "x", {2, 2}, 4),
                       "refused.h5: /x: must hold float64 elements", tq::InputError);
  CHECK_THROWS_WITH_AS(hdf5::read_array<float>(file.root(), "x", {4}, 4),
                       "refused.h5: /x: has shape (2, 2); it must be (4)", tq::InputError);
  CHECK_THROWS_WITH_AS(hdf5::read_array<float>(file.root(), "x", {2, 3}, 9),
                       "refused.h5: /x: has shape (2, 2); it must be (2, 3)", tq::InputError);
  CHECK_THROWS_WITH_AS(hdf5::read_array<float>(file.root(), "x", {2, 2}, 3),
                       "refused.h5: /x: claims (2, 2) elements of 4 bytes; at most 12 bytes are read",
                       tq::InputError);
  CHECK_THROWS_WITH_AS(hdf5::read_array<float>(file.root(), "y", {2}, 2), "refused.h5: /y: is missing",
                       tq::InputError);
}

TEST_CASE("names that would break a line are shown on one") {
  CHECK(hdf5::one_line("a\nb\tc\x7f") == "a?b?c?");
}

TEST_CASE("a file that cannot be created is the machine's fault") {
  CHECK_THROWS_AS(hdf5::create_for_writing(path_of("none/x.h5"), "x.h5"), tq::SystemError);
}

TEST_CASE("chunks of an odd number of bytes") {
  const hdf5::File file = hdf5::open_for_reading(std::string(TQ_FIXTURES) + "/good/odd_bytes.h5");
  const auto read = hdf5::read_array<std::uint8_t>(file.root(), "bytes", {21}, 21);
  for (std::size_t i = 0; i < 21; ++i) CHECK(read.values[i] == i);
}

TEST_CASE("chunks that are unfiltered at the edges are refused") {
  const hdf5::File file = hdf5::create_for_writing(path_of("edges.h5"), "edges.h5");
  const hsize_t extent = 10, chunk = 8;
  const std::vector<std::int32_t> values(10);
  const hdf5::Handle creation(H5Pcreate(H5P_DATASET_CREATE), H5Pclose),
      space(H5Screate_simple(1, &extent, nullptr), H5Sclose);
  H5Pset_chunk(creation.get(), 1, &chunk);
  H5Pset_deflate(creation.get(), 1);
  H5Pset_chunk_opts(creation.get(), H5D_CHUNK_DONT_FILTER_PARTIAL_CHUNKS);
  {
    const hdf5::Handle dataset(H5Dcreate2(file.root().id(), "x", H5T_STD_I32LE, space.get(), H5P_DEFAULT,
                                          creation.get(), H5P_DEFAULT),
                               H5Dclose);
    REQUIRE(H5Dwrite(dataset.get(), H5T_NATIVE_INT32, H5S_ALL, H5S_ALL, H5P_DEFAULT, values.data()) >= 0);
  }
  CHECK_THROWS_WITH_AS(hdf5::read_array<std::int32_t>(file.root(), "x", {10}, 10),
                       "edges.h5: /x: leaves chunks at its edges unfiltered; rewrite it without that option",
                       tq::InputError);
}
