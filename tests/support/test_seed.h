#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "core/random.h"

namespace tq::test {

// Seed of every randomised test of this run: TQ_TEST_SEED, else fresh from std::random_device. Printed once,
// so that a failure can be repeated.
std::uint64_t test_seed();

// `count` values N(0, size^2).
std::vector<float> normal_values(Random& random, std::size_t count, double size = 1);

// A generator of its own for each `purpose` of a test (any number).
Random test_random(std::uint32_t purpose);

}  // namespace tq::test
