#include <doctest/doctest.h>

#include <algorithm>
#include <string>

#include "core/error.h"
#include "jit/architecture.h"
#include "tests/jit/nvrtc_present.h"

using tq::Architecture;

TEST_CASE("an architecture is read and printed") {
  CHECK(Architecture::parse("sm_80") == Architecture{8, 0, false});
  CHECK(Architecture::parse("sm_90a") == Architecture{9, 0, true});
  CHECK(Architecture::parse("sm_121") == Architecture{12, 1, false});
  for (const char* text : {"sm_75", "sm_90", "sm_90a", "sm_100a", "sm_120"}) {
    CHECK(tq::to_string(Architecture::parse(text)) == text);
  }
}

TEST_CASE("what is no architecture is refused") {
  for (const char* text : {"", "sm_", "sm_9", "sm_09", "sm_a", "sm_90b", "sm_90aa", "sm_9000", "sm_-90",
                           "sm_9 0", "90", "compute_90", "SM_90", " sm_90", "sm_90 "}) {
    CAPTURE(text);
    CHECK_THROWS_AS(Architecture::parse(text), tq::UsageError);
  }
}

TEST_CASE("NVRTC says what it compiles for, and the best of it is chosen for a device") {
  if (!tq::test::nvrtc_present()) return;
  const auto known = tq::supported_architectures();
  CHECK(std::is_sorted(known.begin(), known.end()));
  CHECK(std::find(known.begin(), known.end(), Architecture{9, 0}) != known.end());
  CHECK(tq::newest_architecture() == known.back());
  for (const Architecture& one : known) CHECK(tq::best_architecture_for(one) == one);
  // A minor version that NVRTC does not know yet runs what is made for an older one.
  CHECK(tq::best_architecture_for({8, 99}) == Architecture{8, 9});
  CHECK_THROWS_AS(tq::best_architecture_for({99, 0}), tq::SystemError);
  CHECK_THROWS_AS(tq::best_architecture_for({2, 0}), tq::SystemError);
}
