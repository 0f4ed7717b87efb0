#include <doctest/doctest.h>
#include <fmt/format.h>

#include <memory>
#include <vector>

#include "calibration/codecs/trellis.h"
#include "tests/support/exact_inputs.h"
#include "tests/support/golden.h"
#include "tests/support/simd_targets.h"

using tq::Rotation;
using tq::RotationKind;
using tq::ScaleRule;
using tq::test::ByteString;

// No file holds these codes yet, so they have no version: until one does, raise the number below instead.
TEST_CASE("frozen: trellis codes") {
  constexpr int kVersion = 1;
  constexpr std::size_t kRows = 18;
  tq::test::GoldenDigests golden("encodings");
  tq::test::on_every_target([&] {
    for (const int d : {16, 64, 80}) {
      const auto rotation = std::make_shared<const Rotation>(Rotation::make(RotationKind::rht, d, 1));
      const std::vector<float> x = tq::test::exact_rows(7, kRows, static_cast<std::size_t>(d));
      for (const int bits : {1, 2, 3, 4}) {
        for (const ScaleRule rule : {ScaleRule::norm, ScaleRule::nc, ScaleRule::ls}) {
          if (d != 16 && rule != ScaleRule::nc) continue;
          tq::EncodedTrellis encoded;
          tq::TrellisCodec(bits, rule, rotation).encode(x.data(), kRows, encoded);
          golden.check(fmt::format("trellis {}, {} bits {} of {}", kVersion, bits, tq::to_string(rule), d),
                       ByteString().add(encoded.codes).add(encoded.scales).text());
        }
      }
    }
  });
}
