#include "device/wht_halves.cuh"  // the device's code, on the host: on_host/device/ptx.cuh

#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <vector>

#include "core/hadamard.h"
#include "core/half.h"
#include "tests/support/reference.h"
#include "tests/support/test_seed.h"

using namespace tq::gpu;
using tq::test::normal_values;
using tq::test::test_random;

namespace {

u16 to_bits(float value, Element element) {
  return element == Element::f16 ? tq::float_to_half(value) : tq::float_to_bfloat16(value);
}
float from_bits(u16 bits, Element element) {
  return element == Element::f16 ? tq::half_to_float(bits) : tq::bfloat16_to_float(bits);
}

// Every row against H by its definition, and that nothing is written behind the last one.
template <WhtSpec kSpec>
void check_rows(std::size_t rows, bool in_place, tq::Random& random) {
  constexpr std::size_t d = kSpec.order, kGuard = 8;
  constexpr u16 kUnwritten = 0xffff;
  const std::vector<float> values = normal_values(random, rows * d);
  std::vector<Vector4> in((rows * d + kGuard) / 8), out(in.size());
  std::vector<u16> x(rows * d);
  for (std::size_t i = 0; i < x.size(); ++i) x[i] = to_bits(values[i], kSpec.element);
  std::memset(in.data(), 0xff, in.size() * sizeof(Vector4));
  std::memset(out.data(), 0xff, out.size() * sizeof(Vector4));
  std::memcpy(in.data(), x.data(), x.size() * sizeof(u16));
  std::vector<Vector4>& to = in_place ? in : out;

  const float gain = 1 / std::sqrt(static_cast<float>(d));
  const std::size_t block_rows = kWhtHalvesThreads / kLanes * kWhtHalvesRows;
  run_grid(wht_halves<kSpec>, {static_cast<unsigned>((rows + block_rows - 1) / block_rows), 1, 1},
           kWhtHalvesThreads, WhtParams{in.data(), to.data(), static_cast<i64>(rows), gain});

  std::vector<u16> y(rows * d + kGuard);
  std::memcpy(y.data(), to.data(), y.size() * sizeof(u16));
  for (std::size_t i = 0; i < kGuard; ++i) CHECK(y[rows * d + i] == kUnwritten);
  const tq::reference::Matrix h = tq::reference::hadamard(tq::hadamard_plan(kSpec.order));
  for (std::size_t r = 0; r < rows; ++r) {
    tq::reference::Vector row(d);
    for (std::size_t i = 0; i < d; ++i) row[i] = from_bits(x[r * d + i], kSpec.element);
    const tq::reference::Vector expected =
        kSpec.transposed ? tq::reference::multiply_transposed(h, row) : tq::reference::multiply(h, row);
    std::size_t wrong = 0;
    for (std::size_t i = 0; i < d; ++i) {
      // Rounded once: the neighbouring number where the product lies half way to float32's precision.
      const double exact = expected[i] * gain, half_step = kSpec.element == Element::f16 ? 0x1p-11 : 0x1p-8;
      const double error = std::abs(from_bits(y[r * d + i], kSpec.element) - exact);
      if (!(error <= half_step * 1.001 * std::abs(exact) + 1e-6)) ++wrong;
    }
    CHECK_MESSAGE(wrong == 0, "order ", kSpec.order, ", row ", r, " of ", rows);
  }
}

}  // namespace

TEST_CASE("16-bit rows of orders with one of Paley's factors are multiplied by H and rounded once") {
  tq::Random random = test_random(1);
  check_rows<WhtSpec{80, Element::f16, false}>(70, false, random);
  check_rows<WhtSpec{80, Element::f16, true}>(16, true, random);
  check_rows<WhtSpec{96, Element::bf16, false}>(3, false, random);
  check_rows<WhtSpec{144, Element::f16, true}>(17, false, random);
  check_rows<WhtSpec{192, Element::f16, false}>(33, true, random);
  check_rows<WhtSpec{192, Element::bf16, true}>(1, false, random);
  check_rows<WhtSpec{224, Element::f16, false}>(5, false, random);
}
