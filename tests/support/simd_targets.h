#pragma once

#include <doctest/doctest.h>
#include <hwy/targets.h>
#include <omp.h>

#include <cstdint>

namespace tq::test {

// Makes Highway dispatch to one SIMD target for as long as it lives.
class ForcedTarget {
 public:
  explicit ForcedTarget(std::int64_t target) {
    hwy::SetSupportedTargetsForTest(target);
    hwy::GetChosenTarget().DeInit();
  }
  ~ForcedTarget() {
    hwy::SetSupportedTargetsForTest(0);
    hwy::GetChosenTarget().DeInit();
  }
  ForcedTarget(const ForcedTarget&) = delete;
  ForcedTarget& operator=(const ForcedTarget&) = delete;
};

// body() with each SIMD target that this machine has, alone and on three threads.
template <typename Body>
void on_every_target(const Body& body) {
  const int before = omp_get_max_threads();
  for (const std::int64_t target : hwy::SupportedAndGeneratedTargets()) {
    for (const int threads : {1, 3}) {
      INFO(hwy::TargetName(target) << ", threads: " << threads);
      const ForcedTarget forced(target);
      REQUIRE(hwy::SupportedTargets() == target);
      omp_set_num_threads(threads);
      body();
    }
  }
  omp_set_num_threads(before);
}

}  // namespace tq::test
