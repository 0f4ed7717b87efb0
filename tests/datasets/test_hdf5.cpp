#include <doctest/doctest.h>

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "core/error.h"
#include "datasets/hdf5.h"
#include "datasets/input_tree.h"

namespace hdf5 = tq::hdf5;

namespace {

std::string path_of(const std::string& name) {
  std::filesystem::create_directories(TQ_WRITTEN);
  return std::string(TQ_WRITTEN) + "/" + name;
}

const std::vector<tq::Trust> kTrusts{tq::Trust::none, tq::Trust::full};

template <typename T>
void check_array(const std::string& name, const std::vector<T>& values) {
  const std::string path = path_of(name + ".h5");
  {
    hdf5::File file = hdf5::create_for_writing(path, path);
    hdf5::write_array(file.root(), name, {2, values.size() / 2}, values);
    file.close();
  }
  for (const tq::Trust trust : kTrusts) {
    const auto read = hdf5::open_input(path, trust).array<T>(name, {2, hdf5::kAnyExtent}, values.size());
    CHECK(read.values == values);
    CHECK(read.extents == hdf5::Extents{2, values.size() / 2});
  }
}

}  // namespace

TEST_CASE("attributes come back as they were written") {
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
  for (const tq::Trust trust : kTrusts) {
    const hdf5::InputGroup root = hdf5::open_input(path, trust), group = root.group("group");
    CHECK(group.string_attribute("text") == "caf\xc3\xa9");
    CHECK(group.string_attribute("empty").empty());
    CHECK(group.int64_attribute("count") == std::int64_t{-1} << 62);
    CHECK(group.double_attribute("scale") == 0.1);
    CHECK(group.attribute_count() == 4);
    CHECK(group.has_attribute("scale"));
    CHECK(!group.has_attribute("other"));
    CHECK(root.child_names() == std::vector<std::string>{"group"});
    CHECK(!root.has_child("group/none"));
    CHECK_THROWS_WITH_AS(group.int64_attribute("text"),
                         (path + ": /group: attribute 'text' must be an integer").c_str(), tq::InputError);
    CHECK_THROWS_AS(group.string_attribute("other"), tq::InputError);
    CHECK_THROWS_AS(root.group("group/.."), tq::InputError);
    CHECK_THROWS_AS(root.group("."), tq::InputError);
    CHECK_THROWS_AS(root.group("group/"), tq::InputError);
    CHECK_THROWS_AS(root.child_names(0), tq::InputError);
  }
}

TEST_CASE("arrays come back as they were written") {
  check_array<float>("f32", {1.5f, -2, 3, 4});
  check_array<double>("f64", {0.1, 0.2, 0.3, 0.4, 0.5, 0.6});
  check_array<std::uint8_t>("u8", {0, 255});
  check_array<std::uint16_t>("u16", {0, 65535, 1, 2});
  check_array<std::int32_t>("i32", {-2147483647, 5});
  // More than the reader asks for at once.
  std::vector<std::int32_t> many(40 << 20);
  for (std::size_t i = 0; i < many.size(); ++i) many[i] = static_cast<std::int32_t>(i);
  check_array<std::int32_t>("many", many);
}

TEST_CASE("an array of another type, shape or size is refused") {
  const std::string path = path_of("refused.h5");
  {
    hdf5::File file = hdf5::create_for_writing(path, path);
    hdf5::write_array<float>(file.root(), "x", {2, 2}, {1, 2, 3, 4});
    file.close();
  }
  const hdf5::InputGroup root = hdf5::open_input(path, tq::Trust::none);
  CHECK_THROWS_WITH_AS(root.array<double>("x", {2, 2}, 4),
                       (path + ": /x: must hold float64 elements").c_str(), tq::InputError);
  CHECK_THROWS_WITH_AS(root.array<float>("x", {4}, 4),
                       (path + ": /x: has shape (2, 2); it must be (4)").c_str(), tq::InputError);
  CHECK_THROWS_WITH_AS(root.array<float>("x", {2, 3}, 9),
                       (path + ": /x: has shape (2, 2); it must be (2, 3)").c_str(), tq::InputError);
  CHECK_THROWS_WITH_AS(root.array<float>("x", {2, 2}, 3),
                       (path + ": /x: claims (2, 2) elements of 4 bytes; at most 12 bytes are read").c_str(),
                       tq::InputError);
  CHECK_THROWS_WITH_AS(root.array<float>("y", {2}, 2), (path + ": /y: is missing").c_str(), tq::InputError);
}

TEST_CASE("names that would break a line are shown on one") {
  CHECK(hdf5::one_line("a\nb\tc\x7f") == "a?b?c?");
}

TEST_CASE("a file that cannot be created is the machine's fault") {
  CHECK_THROWS_AS(hdf5::create_for_writing(path_of("none/x.h5"), "x.h5"), tq::SystemError);
}

TEST_CASE("chunks of an odd number of bytes") {
  const hdf5::InputGroup root =
      hdf5::open_input(std::string(TQ_FIXTURES) + "/good/odd_bytes.h5", tq::Trust::none);
  const auto read = root.array<std::uint8_t>("bytes", {21}, 21);
  for (std::size_t i = 0; i < 21; ++i) CHECK(read.values[i] == i);
}

TEST_CASE("chunks that are unfiltered at the edges are refused") {
  const std::string path = path_of("edges.h5");
  hdf5::File file = hdf5::create_for_writing(path, path);
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
  file.close();
  CHECK_THROWS_WITH_AS(
      hdf5::open_input(path, tq::Trust::none).array<std::int32_t>("x", {10}, 10),
      (path + ": /x: leaves chunks at its edges unfiltered; rewrite it without that option").c_str(),
      tq::InputError);
}
