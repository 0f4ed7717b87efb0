#include <cmath>
#include <mutex>

#include "core/hadamard.h"
#include "kernel_templates/gpu_codec.h"
#include "tests/gpu/gpu_support.h"
#include "tests/support/reference.h"
#include "tests/support/test_seed.h"

namespace tq::test {
namespace {

// ||H x - reference|| / ||reference||, worst row; H from the definitions.
double wht_error(int order, gpu::Element element, bool transposed, std::size_t rows, bool in_place,
                 Random& random) {
  const std::size_t d = static_cast<std::size_t>(order);
  const std::vector<float> x = rounded(normal_values(random, rows * d), element);
  const DeviceInput in(x, element);
  const Guarded<std::uint8_t> out(x.size() * static_cast<std::size_t>(gpu::element_bytes(element)));
  const float gain = 1 / std::sqrt(static_cast<float>(order));
  if (in_place) {
    gpu::wht(gpu(), order, element, transposed, in.data(), in.data(), static_cast<gpu::i64>(rows), gain, {});
  } else {
    gpu::wht(gpu(), order, element, transposed, in.data(), out.data(), static_cast<gpu::i64>(rows), gain, {});
  }
  std::vector<std::uint8_t> bytes(x.size() * static_cast<std::size_t>(gpu::element_bytes(element)));
  const CurrentContext current(gpu().device());
  gpu().device().synchronize();
  if (!bytes.empty()) download(bytes, reinterpret_cast<DeviceAddress>(in_place ? in.data() : out.data()));
  if (!in_place) static_cast<void>(out.read());
  const std::vector<float> y = from_element(bytes, element);
  const reference::Matrix h = reference::hadamard(hadamard_plan(order));
  double worst = 0;
  for (std::size_t r = 0; r < rows; ++r) {
    const reference::Vector row = reference::widen(std::span(x).subspan(r * d, d));
    reference::Vector expected =
        transposed ? reference::multiply_transposed(h, row) : reference::multiply(h, row);
    for (double& value : expected) value /= std::sqrt(static_cast<double>(order));
    const double error =
        reference::relative_error(reference::widen(std::span(y).subspan(r * d, d)), expected);
    if (!(error <= worst)) worst = error;
  }
  return worst;
}

}  // namespace

TEST_CASE("the transform of every order, in place and not, is H to float32's rounding") {
  struct Case {
    int order;
    bool transposed;
  };
  std::vector<Case> cases;
  for (int order = 16; order <= 1024; order += 8) {
    if (!hadamard_supported(order)) continue;
    cases.push_back({order, false});
    cases.push_back({order, true});
  }
  std::mutex mutex;
  double worst = 0;
  in_parallel(1, cases.size(), [&](std::size_t i, Random& random) {
    const auto [order, transposed] = cases[i];
    const std::size_t rows = 1 + random.below(70);
    const double error = wht_error(order, gpu::Element::f32, transposed, rows, random.below(2) == 0, random);
    CHECK_MESSAGE(error < 1e-6, "order ", order, transposed ? " transposed" : "", ", ", rows,
                  " rows: ", error);
    const std::lock_guard lock(mutex);
    if (!(error <= worst)) worst = error;
  });
  MESSAGE("largest relative error, float32: ", worst);
}

TEST_CASE("binary16 and bfloat16 are rounded once, at the end") {
  Random random = test_random(2);
  for (const int order : {16, 64, 72, 80, 96, 128, 144, 160, 192, 224, 256, 512, 560, 1024}) {
    const std::size_t rows = 1 + random.below(150);
    const double half = wht_error(order, gpu::Element::f16, false, rows, false, random);
    const double bfloat = wht_error(order, gpu::Element::bf16, true, rows, true, random);
    CHECK_MESSAGE(half < 5e-4, "order ", order, ": ", half);
    CHECK_MESSAGE(bfloat < 4e-3, "order ", order, ": ", bfloat);
  }
}

TEST_CASE("no rows, and rows of no tile's multiple") {
  Random random = test_random(3);
  for (const std::size_t rows : {0, 1, 2, 3, 15, 17, 257}) {
    CHECK(wht_error(128, gpu::Element::f32, false, rows, false, random) < 1e-6);
    CHECK(wht_error(96, gpu::Element::f32, false, rows, false, random) < 1e-6);
    CHECK(wht_error(240, gpu::Element::f32, false, rows, true, random) < 1e-6);
    CHECK(wht_error(80, gpu::Element::f16, false, rows, true, random) < 5e-4);
  }
}

TEST_CASE("the transform twice is the identity beyond 2^31 elements") {
  const std::size_t d = 512, rows = (std::size_t{1} << 31) / d + 1000;
  if (gpu().device().free_bytes() < rows * d * 2 + (std::size_t{1} << 30)) {
    MESSAGE("skipped: not enough device memory");
    return;
  }
  Random random = test_random(4);
  const DeviceBuffer big(gpu().device(), rows * d * 2);
  const CurrentContext current(gpu().device());
  fill(big.address(), 0, big.bytes());
  const std::size_t last = (rows - 1) * d * 2;
  const std::vector<std::uint8_t> row = to_element(normal_values(random, d), gpu::Element::f16);
  upload(big.address() + last, row);
  const float gain = 1 / std::sqrt(512.0f);
  void* data = big.as<void>();
  gpu::wht(gpu(), 512, gpu::Element::f16, false, data, data, static_cast<gpu::i64>(rows), gain, {});
  gpu::wht(gpu(), 512, gpu::Element::f16, false, data, data, static_cast<gpu::i64>(rows), gain, {});
  std::vector<std::uint8_t> back(d * 2);
  download(back, big.address() + last);
  CHECK(reference::relative_error(reference::widen(from_element(back, gpu::Element::f16)),
                                  reference::widen(from_element(row, gpu::Element::f16))) < 2e-3);
}

}  // namespace tq::test
