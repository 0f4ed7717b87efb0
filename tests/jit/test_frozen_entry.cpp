#include <doctest/doctest.h>

#include <algorithm>
#include <cstddef>
#include <string>

#include "jit/cache_entry.h"
#include "tests/support/golden.h"
#include "tests/support/temporary_folder.h"

// A cache is made again, so earlier formats need not be read; but a key must not stand for two of them.
TEST_CASE("frozen: an entry of the cache of compiled kernels") {
  const tq::CompiledImage image{
      {std::byte{1}, std::byte{0}, std::byte{255}}, "name", {1, 2, 3, 4, 5, 6}, "log\n"};
  std::string name = std::string(tq::kCacheFormat) + ".bin";
  std::replace(name.begin(), name.end(), ' ', '_');
  const std::string key(64, 'a');
  tq::test::check_golden_file(name, tq::write_cache_entry(key, image));
  const auto read = tq::read_cache_entry(tq::test::read_text(tq::test::golden_path(name)), key);
  REQUIRE(read);
  CHECK(read->cubin == image.cubin);
  CHECK(read->lowered_name == image.lowered_name);
  CHECK(read->usage == image.usage);
  CHECK(read->log == image.log);
}
