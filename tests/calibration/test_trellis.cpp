#include <doctest/doctest.h>
#include <omp.h>

#include <cmath>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "calibration/codecs/registry.h"
#include "calibration/codecs/trellis.h"
#include "core/error.h"
#include "core/half.h"
#include "tests/support/reference.h"
#include "tests/support/simd_targets.h"
#include "tests/support/test_seed.h"

using tq::EncodedTrellis;
using tq::Rotation;
using tq::RotationKind;
using tq::ScaleRule;
using tq::TrellisCodec;

namespace {

TrellisCodec make_codec(int bits, int d, RotationKind kind = RotationKind::rht,
                        ScaleRule scale = ScaleRule::nc) {
  return {bits, scale, std::make_shared<Rotation>(Rotation::make(kind, d, tq::test::test_seed()))};
}

std::vector<float> stored(const TrellisCodec& codec, const std::vector<float>& x, int d) {
  EncodedTrellis encoded;
  codec.encode(x.data(), x.size() / static_cast<std::size_t>(d), encoded);
  std::vector<float> out(x.size(), -1);
  codec.decode(encoded, out.data());
  return out;
}

// The reconstruction in the rotated frame, without its scale, from a row's bytes: windows are cut out of the
// ring of bits, whose newest symbol is the low end of a window.
tq::reference::Vector directions_of(const std::uint8_t* bytes, std::size_t d, int bits,
                                    const std::vector<float>& levels) {
  const std::size_t b = static_cast<std::size_t>(bits);
  const auto bit = [&](std::size_t at) { return static_cast<std::size_t>(bytes[at / 8] >> at % 8 & 1); };
  tq::reference::Vector c(d);
  for (std::size_t t = 0; t < d; ++t) {
    std::size_t window = 0;
    for (std::size_t k = 0; k < 12; ++k) {
      const std::size_t symbol = (t + d - k / b) % d;
      window |= bit(symbol * b + k % b) << k;
    }
    c[t] = static_cast<double>(levels[window]) / std::sqrt(static_cast<double>(d));
  }
  return c;
}

}  // namespace

TEST_CASE("trellis: bytes alone decode to the reconstruction, with the scale of its rule") {
  struct Shape {
    int d;
    RotationKind kind;
  };
  for (const Shape shape :
       {Shape{16, RotationKind::rht}, Shape{24, RotationKind::qr}, Shape{80, RotationKind::rht},
        Shape{128, RotationKind::qr}, Shape{128, RotationKind::rht}, Shape{576, RotationKind::rht}}) {
    constexpr std::size_t kRows = 5;
    const int d = shape.d;
    const std::size_t width = static_cast<std::size_t>(d);
    CAPTURE(d);
    const auto rotation =
        std::make_shared<Rotation>(Rotation::make(shape.kind, d, tq::test::test_seed() + 1));
    const tq::reference::Matrix matrix = tq::reference::dense(*rotation);
    for (const int bits : {1, 2, 3, 4}) {
      for (const ScaleRule rule : {ScaleRule::norm, ScaleRule::nc, ScaleRule::ls}) {
        CAPTURE(bits);
        CAPTURE(tq::to_string(rule));
        tq::Random random = tq::test::test_random(static_cast<std::uint32_t>(10 * d + bits));
        const std::vector<float> x = tq::test::normal_values(random, kRows * width, 3);
        const TrellisCodec codec(bits, rule, rotation);
        EncodedTrellis encoded;
        codec.encode(x.data(), kRows, encoded);
        const tq::StorageConfig config{tq::storage_codec_named("trellis"), bits, rule};
        CHECK(encoded.codes.size() + 2 * encoded.scales.size() ==
              kRows * static_cast<std::size_t>(bytes_per_token(config, d)));
        std::vector<float> out(x.size());
        codec.decode(encoded, out.data());
        for (std::size_t row = 0; row < kRows; ++row) {
          const auto exact = tq::reference::widen({x.data() + row * width, width});
          const auto c = directions_of(encoded.codes.data() + row * encoded.codes.size() / kRows, width, bits,
                                       tq::gaussian_levels(bits, 12));
          const double g = tq::reference::scale_of(rule, tq::reference::norm(exact),
                                                   tq::reference::rotated_direction(matrix, exact), c);
          const double scale = tq::reference::from_half(encoded.scales[row]);
          CHECK(std::fabs(scale - g) <= tq::reference::half_rounding(g) + 1e-5 * g);
          auto expected = tq::reference::multiply_transposed(matrix, c);
          for (double& value : expected) value *= scale;
          const auto decoded = tq::reference::widen({out.data() + row * width, width});
          CHECK(tq::reference::relative_error(decoded, expected) < 1e-5);
        }
      }
    }
  }
}

TEST_CASE("trellis: error on Gaussian vectors") {
  constexpr int kDim = 128;
  constexpr std::size_t kRows = 400;
  tq::Random random = tq::test::test_random(20);
  const std::vector<float> x = tq::test::normal_values(random, kRows * kDim);
  // Lloyd-Max has 0.361, 0.116, 0.0340, 0.0093; no code has less than 0.25, 0.0625, 0.0156, 0.0039.
  const double most[] = {0.285, 0.072, 0.0184, 0.00480}, least[] = {0.25, 0.0625, 0.0156, 0.0039};
  for (const int bits : {1, 2, 3, 4}) {
    const std::vector<float> out = stored(make_codec(bits, kDim, RotationKind::rht, ScaleRule::ls), x, kDim);
    double sum = 0;
    for (std::size_t row = 0; row < kRows; ++row) {
      double error = 0, square = 0;
      for (std::size_t j = row * kDim; j < (row + 1) * kDim; ++j) {
        error += std::pow(static_cast<double>(x[j]) - static_cast<double>(out[j]), 2);
        square += std::pow(static_cast<double>(x[j]), 2);
      }
      sum += error / square;
    }
    MESSAGE(bits << " bits: relative MSE " << sum / kRows);
    CHECK(sum / kRows < most[bits - 1]);
    CHECK(sum / kRows > least[bits - 1]);
  }
}

TEST_CASE("trellis: zero vectors, extremes and NaN") {
  constexpr std::size_t kD = 96;
  for (const ScaleRule rule : {ScaleRule::norm, ScaleRule::nc, ScaleRule::ls}) {
    const TrellisCodec codec = make_codec(3, kD, RotationKind::rht, rule);
    for (const float value : stored(codec, std::vector<float>(2 * kD), kD)) CHECK(value == 0);
    for (const float size : {1e-44f, 1e-39f, 1e-12f, 1e5f, 1e20f, 3e38f}) {
      CAPTURE(size);
      tq::Random random = tq::test::test_random(21);
      std::vector<float> x(kD);
      for (float& value : x) value = (random.bits32() & 1) != 0 ? size : -size;
      EncodedTrellis encoded;
      codec.encode(x.data(), 1, encoded);
      const float scale = tq::half_to_float(encoded.scales[0]);
      if (size > 1e4f) CHECK(scale == 65504);
      if (size < 1e-10f) CHECK(scale == 0);
      const std::vector<float> out = stored(codec, x, kD);
      double inner = 0;
      for (std::size_t j = 0; j < kD; ++j) {
        REQUIRE(std::isfinite(out[j]));
        inner += static_cast<double>(out[j]) * (x[j] > 0 ? 1 : -1);
      }
      if (size > 1e4f) CHECK(inner > 0.9 * 65504 * std::sqrt(96));  // the direction is kept
    }

    tq::Random random = tq::test::test_random(22);
    std::vector<float> x = tq::test::normal_values(random, 20 * kD);
    const std::vector<float> before = stored(codec, x, kD);
    x[7 * kD + 5] = std::numeric_limits<float>::quiet_NaN();
    const std::vector<float> after = stored(codec, x, kD);
    for (std::size_t i = 0; i < x.size(); ++i) {
      if (i / kD == 7) {
        CHECK(std::isnan(after[i]));
      } else {
        CHECK(after[i] == before[i]);
      }
    }
  }
}

TEST_CASE("trellis: the same bytes on every SIMD target and with any number of threads") {
  constexpr int kDim = 80;
  constexpr std::size_t kRows = 270;
  tq::Random random = tq::test::test_random(23);
  const std::vector<float> x = tq::test::normal_values(random, kRows * kDim);
  const TrellisCodec codec = make_codec(2, kDim);
  const auto everything = [&] {
    EncodedTrellis encoded;
    codec.encode(x.data(), kRows, encoded);
    std::vector<float> out(x.size());
    codec.decode(encoded, out.data());
    std::string bytes(encoded.codes.begin(), encoded.codes.end());
    bytes.append(reinterpret_cast<const char*>(encoded.scales.data()), 2 * encoded.scales.size());
    return bytes.append(reinterpret_cast<const char*>(out.data()), sizeof(float) * out.size());
  };
  const std::string expected = everything();
  const int threads = omp_get_max_threads();
  for (const int count : {1, 3}) {
    omp_set_num_threads(count);
    const bool same = everything() == expected;
    CHECK(same);
  }
  omp_set_num_threads(threads);
  for (const std::int64_t target : hwy::SupportedAndGeneratedTargets()) {
    INFO(hwy::TargetName(target));
    const tq::test::ForcedTarget forced(target);
    const bool same = everything() == expected;
    CHECK(same);
  }
}

TEST_CASE("trellis as a storage codec") {
  const tq::StorageCodec* codec = tq::storage_codec_named("trellis");
  REQUIRE(codec != nullptr);
  CHECK(!codec->baseline());
  CHECK(codec->rotates());
  CHECK(describe(tq::StorageConfig{codec, 3, ScaleRule::ls}) == "trellis3-ls");
  for (const int bits : {1, 2, 3, 4}) CHECK(tq::bytes_per_token({codec, bits}, 128) == 16 * bits + 2);

  const auto message = [&](int bits, int d) -> std::string {
    try {
      tq::validate({codec, bits}, d);
    } catch (const tq::UsageError& error) {
      return error.what();
    }
    return "";
  };
  CHECK(message(4, 1024) == "");
  CHECK(message(1, 16) == "");
  CHECK(message(5, 128) == "5 bits are not supported: trellis takes 1, 2, 3, 4");
  CHECK(message(0, 128) == "0 bits are not supported: trellis takes 1, 2, 3, 4");
  CHECK(message(3, 100) == "head_dim 100 is not a multiple of 8 from 16 to 1024");
  CHECK(message(3, 8) == "head_dim 8 is not a multiple of 8 from 16 to 1024");

  constexpr std::size_t kD = 64, kRows = 30;
  const auto rotation = std::make_shared<Rotation>(Rotation::make(RotationKind::rht, kD, 5));
  tq::Random random = tq::test::test_random(24);
  const std::vector<float> x = tq::test::normal_values(random, kRows * kD);
  const std::vector<float> expected = stored(TrellisCodec(3, ScaleRule::ls, rotation), x, kD);
  std::vector<float> out(x.size());
  const tq::StorageConfig config{codec, 3, ScaleRule::ls};
  tq::storage_values(config, kD, rotation)->encode_decode(x.data(), kRows, out.data());
  CHECK(out == expected);
  tq::storage_keys(config, kD, rotation)->encode(x.data(), kRows)->decode(out.data());
  CHECK(out == expected);
}
