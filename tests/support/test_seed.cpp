#include "tests/support/test_seed.h"

#include <doctest/doctest.h>

#include <cstdlib>
#include <random>
#include <string>

namespace tq::test {

std::uint64_t test_seed() {
  static const std::uint64_t seed = [] {
    const char* fixed = std::getenv("TQ_TEST_SEED");
    std::random_device device;
    const std::uint64_t value =
        fixed != nullptr ? std::stoull(fixed) : static_cast<std::uint64_t>(device()) << 32 | device();
    MESSAGE("random tests of this run: TQ_TEST_SEED=" << value);
    return value;
  }();
  return seed;
}

std::vector<float> normal_values(Random& random, std::size_t count, double size) {
  std::vector<float> values(count);
  for (float& value : values) value = static_cast<float>(size * random.normal());
  return values;
}

Random test_random(std::uint32_t purpose) { return Random(test_seed(), RandomStream::synthetic, purpose); }

}  // namespace tq::test
