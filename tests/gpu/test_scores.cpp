#include <cmath>
#include <mutex>

#include "core/packing.h"
#include "kernel_templates/gpu_codec.h"
#include "kernel_templates/shapes.h"
#include "kernel_templates/tile_rows.h"
#include "tests/gpu/gpu_support.h"
#include "tests/support/cache_samples.h"
#include "tests/support/reference.h"
#include "tests/support/test_seed.h"

namespace tq::test {
namespace {

using gpu::Element;

constexpr int kHeads = 2, kSequences = 2;

}  // namespace

TEST_CASE("scores straight from tiles: whole, table's part, sign bits' part, any group and length") {
  struct Case {
    int d, bits, variant;
  };
  std::vector<Case> cases;
  for (const int d : gpu::kGpuHeadDims) {
    for (int bits = 2; bits <= 4; ++bits) {
      for (int variant = 0; variant < 3; ++variant) cases.push_back({d, bits, variant});
    }
  }
  std::mutex mutex;
  double worst = 0;
  int checked = 0;
  in_parallel(21, cases.size(), [&](std::size_t i, Random& random) {
    const auto [d, bits, variant] = cases[i];
    KeyConfig key;
    key.bits = bits;
    key.mode = variant == 0 ? KeyMode::mse : KeyMode::prod;
    key.sketch = variant == 1 ? SketchKind::gaussian : SketchKind::orthogonal;
    const CacheLayer layer = codec_layer(d, kHeads, key, ValueConfig{}, random.below(2) == 0, random);
    std::vector<const KeyCodec*> codecs;
    for (const auto& codec : layer.keys) codecs.push_back(codec.get());
    gpu::GpuKeyCodec codec(gpu(), codecs, gpu::Side::keys);

    const std::size_t n = static_cast<std::size_t>(d);
    const int group = 1 + static_cast<int>(random.below(16));
    const std::vector<int> lengths{static_cast<int>(random.below(300)),
                                   1 + static_cast<int>(random.below(700))};
    const int most = std::max(lengths[0], lengths[1]);
    const std::size_t tiles = (static_cast<std::size_t>(most) + 63) / 64, stride = tiles * 64 + 3;
    const std::vector<float> x =
        normal_values(random, kSequences * static_cast<std::size_t>(most) * kHeads * n);
    const std::vector<float> q = rounded(
        normal_values(random, kSequences * kHeads * static_cast<std::size_t>(group) * n), Element::f16);
    const DeviceInput in(x, Element::f32), queries(q, Element::f16);
    const std::size_t tile_size = static_cast<std::size_t>(gpu::tile_bytes(codec.spec()));
    const Guarded<std::uint8_t> pages(kSequences * tiles * kHeads * tile_size);
    const gpu::i64 page = static_cast<gpu::i64>(kHeads * tile_size);
    const gpu::TileView view{
        pages.data(), page, static_cast<gpu::i64>(tile_size), page * static_cast<gpu::i64>(tiles),
        nullptr,      0};
    const gpu::i64 token_stride = static_cast<gpu::i64>(kHeads * n);
    gpu::Ranges ranges = gpu::one_range(0, most);
    ranges.sequences = kSequences;
    codec.encode({in.data(), token_stride * most, d, token_stride}, Element::f32, kHeads, ranges, view, false,
                 {});
    const std::vector<std::uint8_t> stored = pages.read();
    const Guarded<int> counts(lengths);

    const std::vector<gpu::ScorePart> parts =
        key.mode == KeyMode::prod
            ? std::vector{gpu::ScorePart::all, gpu::ScorePart::table, gpu::ScorePart::signs}
            : std::vector{gpu::ScorePart::all};
    std::vector<std::vector<float>> results;
    for (const gpu::ScorePart part : parts) {
      const Guarded<float> out(kSequences * kHeads * static_cast<std::size_t>(group) * stride);
      codec.scores(queries.data(), Element::f16, group, kHeads, kSequences, counts.data(), most, view, part,
                   0.125f, out.data(), static_cast<gpu::i64>(stride), {});
      results.push_back(out.read());
    }
    INFO("d ", d, " ", describe(key), " group ", group, " lengths ", lengths[0], " ", lengths[1]);
    for (int s = 0; s < kSequences; ++s) {
      for (int h = 0; h < kHeads; ++h) {
        const std::size_t length = static_cast<std::size_t>(lengths[static_cast<std::size_t>(s)]);
        if (length == 0) continue;
        // The device's codes, not core's: a sign that fell the other way at 0 is no error of the scores.
        const gpu::KeySpec& spec = codec.spec();
        const std::size_t code_bytes = packed_bytes(n, spec.table_bits);
        EncodedKeys encoded;
        encoded.rows = length;
        encoded.codes.resize(length * code_bytes);
        encoded.scales.resize(length);
        encoded.signs.resize(spec.prod ? length * n / 8 : 0);
        encoded.residual_norms.resize(spec.prod ? length : 0);
        for (std::size_t t = 0; t * 64 < length; ++t) {
          const KeyBlock block{encoded.codes.data() + t * 64 * code_bytes, encoded.scales.data() + t * 64,
                               spec.prod ? encoded.signs.data() + t * 64 * (n / 8) : nullptr,
                               spec.prod ? encoded.residual_norms.data() + t * 64 : nullptr};
          const std::size_t tile =
              (static_cast<std::size_t>(s) * tiles + t) * kHeads + static_cast<std::size_t>(h);
          gpu::tile_to_keys(spec, gpu::Side::keys, layer.key_codec(h), stored.data() + tile * tile_size,
                            static_cast<int>(std::min<std::size_t>(64, length - t * 64)), block);
        }
        std::vector<float> back(length * n);
        layer.key_codec(h).decode(encoded, back.data());
        for (int g = 0; g < group; ++g) {
          const std::size_t row =
              (static_cast<std::size_t>(s * kHeads + h)) * static_cast<std::size_t>(group) +
              static_cast<std::size_t>(g);
          const reference::Vector query = reference::widen(std::span(q).subspan(row * n, n));
          reference::Vector is(length), should(length);
          for (std::size_t t = 0; t < length; ++t) {
            is[t] = static_cast<double>(results[0][row * stride + t]);
            should[t] = 0.125 * reference::dot(query, reference::widen(std::span(back).subspan(t * n, n)));
          }
          const double error = reference::relative_error(is, should);
          CHECK(error < 2e-3);
          {
            const std::lock_guard lock(mutex);
            if (!(error <= worst)) worst = error;
            ++checked;
          }
          if (results.size() < 3) continue;
          for (std::size_t t = 0; t < length; ++t)
            is[t] = static_cast<double>(results[1][row * stride + t]) +
                    static_cast<double>(results[2][row * stride + t]);
          CHECK(reference::relative_error(is, should) < 2e-3);
        }
        // What lies behind a sequence's tokens is not touched: still the poison.
        for (std::size_t t = length; t < stride; ++t) {
          const std::size_t row = static_cast<std::size_t>((s * kHeads + h) * group);
          CHECK(std::isnan(results[0][row * stride + t]));
        }
      }
    }
  });
  MESSAGE(checked, " rows of scores, largest relative error ", worst);
}

}  // namespace tq::test
