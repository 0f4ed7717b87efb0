#define DOCTEST_CONFIG_IMPLEMENT
#include <doctest/doctest.h>
#include <fmt/format.h>

#include <cstdio>

#include "core/error.h"
#include "jit/device.h"

namespace {

constexpr int kSkipped = 77;  // ctest's SKIP_RETURN_CODE

int skip(const char* reason) {
  fmt::print("skipped: no GPU ({})\n", reason);
  return kSkipped;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    if (tq::Device::count() == 0) return skip("the driver sees none");
  } catch (const tq::Error& error) {
    return skip(error.what());
  }
  return doctest::Context(argc, argv).run();
}
