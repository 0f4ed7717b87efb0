#include <doctest/doctest.h>
#include <fmt/format.h>

#include <vector>

#include "calibration/codecs/registry.h"
#include "tests/support/exact_inputs.h"
#include "tests/support/golden.h"
#include "tests/support/simd_targets.h"

// Baselines keep no codes: what a vector decodes to stands for them. A codec that changes takes a new name,
// since results of sweeps know it by its name alone.
TEST_CASE("frozen: what baselines decode to") {
  constexpr std::size_t kRows = 18;
  tq::test::GoldenDigests golden("encodings");
  tq::test::on_every_target([&] {
    for (const tq::StorageCodec* codec : tq::storage_codecs()) {
      if (!codec->baseline()) continue;
      for (const int d : {32, 96}) {
        const std::vector<float> x = tq::test::exact_rows(8, kRows, static_cast<std::size_t>(d));
        std::vector<float> out(x.size());
        tq::storage_values({codec}, d, nullptr)->encode_decode(x.data(), kRows, out.data());
        for (float& value : out) {
          if (value != value) value = 0;  // which NaN an overflow gives is the machine's choice
        }
        golden.check(fmt::format("baseline {} of {}", codec->name(), d),
                     tq::test::ByteString().add(out).text());
      }
    }
  });
}
