#include <doctest/doctest.h>

#include <cstddef>
#include <cstdint>

#include "datasets/confined_storage.h"

namespace hdf5 = tq::hdf5;

namespace {

constexpr std::size_t kMost = std::size_t{1} << 30;
constexpr std::size_t kHuge = static_cast<std::size_t>(-1);

hdf5::DatasetInfo sound() {
  return {.kind = hdf5::ElementKind::bfloat16,
          .element_bytes = 2,
          .big_endian = false,
          .extents = {40, 2, 128},
          .chunk = {16, 1, 128},
          .filters = {{hdf5::FilterKind::shuffle, 2}, {hdf5::FilterKind::deflate, 0}},
          .stored_bytes = 12345};
}

// Of a description that differs from a sound one by what `change` does.
template <typename Change>
bool is_consistent_after(const Change& change) {
  hdf5::DatasetInfo info = sound();
  change(info);
  return hdf5::is_consistent(info, kMost);
}

}  // namespace

// Readers index memory by these numbers, and the process that names them may be a hostile file's.
TEST_CASE("descriptions that readers could not compute with are refused") {
  using Info = hdf5::DatasetInfo;
  CHECK(is_consistent_after([](Info&) {}));
  CHECK(is_consistent_after([](Info& info) { info.chunk.clear(); }));
  CHECK(is_consistent_after([](Info& info) { info.extents[0] = 0; }));
  CHECK(is_consistent_after([](Info& info) { info.extents = info.chunk = {}; }));
  CHECK(hdf5::is_consistent(sound(), std::size_t{40} * 2 * 128 * 2));

  CHECK(!hdf5::is_consistent(sound(), std::size_t{40} * 2 * 128 * 2 - 1));
  CHECK(!is_consistent_after([](Info& info) { info.element_bytes = 4; }));
  CHECK(!is_consistent_after([](Info& info) { info.element_bytes = 0; }));
  CHECK(!is_consistent_after([](Info& info) { info.kind = hdf5::ElementKind::float64; }));
  CHECK(!is_consistent_after([](Info& info) { info.extents[1] = kHuge / 2; }));
  CHECK(!is_consistent_after([](Info& info) { info.extents = {kHuge / 2, 4, 128}; }));
  CHECK(!is_consistent_after([](Info& info) { info.extents.pop_back(); }));
  CHECK(!is_consistent_after([](Info& info) { info.extents.assign(H5S_MAX_RANK + 1, 1), info.chunk = {}; }));
  CHECK(!is_consistent_after([](Info& info) { info.chunk.pop_back(); }));
  CHECK(!is_consistent_after([](Info& info) { info.chunk[1] = 0; }));
  CHECK(!is_consistent_after([](Info& info) { info.chunk[0] = kHuge; }));
  CHECK(!is_consistent_after([](Info& info) { info.chunk[0] = hdf5::kMaxChunkBytes / 128; }));
  CHECK(!is_consistent_after([](Info& info) { info.filters[0].element_bytes = 0; }));
  CHECK(!is_consistent_after([](Info& info) { info.filters[1].kind = static_cast<hdf5::FilterKind>(3); }));
  CHECK(!is_consistent_after([](Info& info) { info.filters.resize(H5Z_MAX_NFILTERS + 1); }));
}
