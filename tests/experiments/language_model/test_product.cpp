#include <doctest/doctest.h>
#include <hwy/targets.h>

#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include "core/half.h"
#include "experiments/language_model/product.h"
#include "tests/support/simd_targets.h"
#include "tests/support/test_seed.h"

namespace {

struct Weight {
  std::string bytes;
  std::vector<float> values;  // as the dtype holds them
  tq::SafetensorsTensor tensor;

  Weight(std::size_t n, std::size_t depth, const char* dtype, tq::Random& random)
      : values(tq::test::normal_values(random, n * depth)) {
    bytes.assign(1, '?');  // so that nothing is aligned
    for (float& value : values) {
      if (std::string(dtype) == "F32") {
        bytes.append(reinterpret_cast<const char*>(&value), 4);
        continue;
      }
      const bool half = std::string(dtype) == "F16";
      const std::uint16_t bits = half ? tq::float_to_half(value) : tq::float_to_bfloat16(value);
      value = half ? tq::half_to_float(bits) : tq::bfloat16_to_float(bits);
      bytes.append(reinterpret_cast<const char*>(&bits), 2);
    }
    tensor = {"w", dtype, {n, depth}, std::string_view(bytes).substr(1)};
  }
};

}  // namespace

TEST_CASE("products of every size, dtype and SIMD target against float64") {
  tq::Random random = tq::test::test_random(9101);
  for (const char* dtype : {"F32", "F16", "BF16"}) {
    for (const std::size_t n : {1, 31, 32, 33, 80}) {
      for (const std::size_t depth : {1, 63, 64, 65, 256, 300}) {
        for (const std::size_t rows : {1, 5, 12, 13, 513}) {
          if (rows == 513 && n * depth > 40 * 70) continue;  // slow
          const Weight weight(n, depth, dtype, random);
          const std::vector<float> x = tq::test::normal_values(random, rows * depth);
          std::vector<float> first;
          tq::test::on_every_target([&] {
            std::vector<float> out(rows * n + 1, -7);
            multiply(x.data(), rows, weight.tensor, out.data());
            CHECK(out.back() == -7);
            out.pop_back();
            bool near = true;
            for (std::size_t i = 0; i < rows; ++i) {
              for (std::size_t j = 0; j < n; ++j) {
                double sum = 0, size = 0;
                for (std::size_t l = 0; l < depth; ++l) {
                  const double term = static_cast<double>(x[i * depth + l]) * weight.values[j * depth + l];
                  sum += term;
                  size += std::fabs(term);
                }
                near &= std::fabs(out[i * n + j] - sum) <= 1e-6 * size;
              }
            }
            CHECK(near);
            if (hwy::SupportedTargets() == HWY_SSSE3) return;  // rounds twice
            if (first.empty()) first = out;
            CHECK(out == first);
          });
        }
      }
    }
  }
}

TEST_CASE("a product of no rows") {
  tq::Random random = tq::test::test_random(9102);
  const Weight weight(3, 4, "F32", random);
  multiply(nullptr, 0, weight.tensor, nullptr);
}
