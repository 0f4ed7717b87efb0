#include <cmath>
#include <cstdlib>
#include <limits>
#include <mutex>

#include "core/half.h"
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
using gpu::Side;

// How the device's codes differ from core's.
struct Differences {
  std::size_t codes = 0, near_boundary = 0;  // coordinates; those within 1e-6 of a boundary
  std::size_t signs = 0, near_zero = 0;      // sketched residuals within 1e-6 of 0
  std::size_t scalars = 0, one_ulp = 0;      // halves that differ; those by one unit in the last place
  std::size_t compared = 0;
  bool explained() const { return codes == near_boundary && signs == near_zero && scalars == one_ulp; }
  void add(const Differences& other) {
    codes += other.codes, near_boundary += other.near_boundary, signs += other.signs,
        near_zero += other.near_zero;
    scalars += other.scalars, one_ulp += other.one_ulp, compared += other.compared;
  }
};

void compare_half(std::uint16_t is, std::uint16_t should, Differences& differences) {
  if (is == should) return;
  ++differences.scalars;
  if (std::abs(static_cast<int>(is) - static_cast<int>(should)) == 1) ++differences.one_ulp;
}

// x: rows x d of one head, as the device saw it.
Differences compare_keys(const KeyCodec& codec, const std::vector<float>& x, const EncodedKeys& is) {
  const std::size_t d = static_cast<std::size_t>(codec.head_dim()), rows = x.size() / d;
  const int bits = codec.config().table_bits();
  const std::size_t code_bytes = packed_bytes(d, bits);
  EncodedKeys should;
  codec.encode(x.data(), rows, should);
  const reference::Matrix rotation = reference::dense(codec.rotation());
  Differences differences;
  differences.compared = rows * d;
  std::vector<std::uint8_t> a(d), b(d);
  for (std::size_t r = 0; r < rows; ++r) {
    unpack_codes(is.codes.data() + r * code_bytes, d, bits, a.data());
    unpack_codes(should.codes.data() + r * code_bytes, d, bits, b.data());
    const reference::Vector y =
        reference::rotated_direction(rotation, reference::widen(std::span(x).subspan(r * d, d)));
    for (std::size_t j = 0; j < d; ++j) {
      if (a[j] == b[j]) continue;
      ++differences.codes;
      if (reference::distance_to_boundary(codec.tables().codebook, y[j]) < 1e-6) ++differences.near_boundary;
    }
    if (a != b) continue;  // scales and residuals follow the codes
    compare_half(is.scales[r], should.scales[r], differences);
    if (codec.config().mode != KeyMode::prod) continue;
    compare_half(is.residual_norms[r], should.residual_norms[r], differences);
    std::vector<std::uint8_t> s(d), t(d);
    unpack_codes(is.signs.data() + r * (d / 8), d, 1, s.data());
    unpack_codes(should.signs.data() + r * (d / 8), d, 1, t.data());
    if (s == t) continue;
    reference::Vector residual(d);
    for (std::size_t j = 0; j < d; ++j) residual[j] = y[j] - codec.tables().codebook.centroids[b[j]];
    const reference::Vector z = reference::multiply(reference::dense(*codec.sketch()), residual);
    for (std::size_t j = 0; j < d; ++j) {
      if (s[j] == t[j]) continue;
      ++differences.signs;
      if (std::abs(z[j]) < 1e-6 * std::sqrt(static_cast<double>(d))) ++differences.near_zero;
    }
  }
  return differences;
}

// Rows of one head in core's layout, from device arrays of all heads.
EncodedKeys head_rows(const KeyCodec& codec, std::size_t head, std::size_t rows,
                      const std::vector<std::uint8_t>& codes, const std::vector<std::uint16_t>& scales,
                      const std::vector<std::uint8_t>& signs, const std::vector<std::uint16_t>& norms) {
  const std::size_t d = static_cast<std::size_t>(codec.head_dim());
  const std::size_t code_bytes = packed_bytes(d, codec.config().table_bits());
  const auto part = [&](const auto& from, std::size_t width) {
    const auto begin = from.begin() + static_cast<std::ptrdiff_t>(head * rows * width);
    return std::decay_t<decltype(from)>(begin, begin + static_cast<std::ptrdiff_t>(rows * width));
  };
  EncodedKeys keys;
  keys.rows = rows;
  keys.codes = part(codes, code_bytes);
  keys.scales = part(scales, 1);
  if (codec.config().mode == KeyMode::prod) {
    keys.signs = part(signs, d / 8);
    keys.residual_norms = part(norms, 1);
  }
  return keys;
}

constexpr int kHeads = 3;

struct KeySample {
  std::vector<std::shared_ptr<const KeyCodec>> owners;
  std::vector<const KeyCodec*> codecs;
  std::size_t d, rows;
  Element element;
  std::vector<float> x;  // head x rows x d, rounded to the element

  KeySample(int head_dim, const KeyConfig& key, bool per_head, std::size_t count, Element type,
            Random& random)
      : d(static_cast<std::size_t>(head_dim)), rows(count), element(type) {
    const CacheLayer layer = codec_layer(head_dim, kHeads, key, ValueConfig{}, per_head, random);
    owners = layer.keys;
    for (const auto& owner : owners) codecs.push_back(owner.get());
    x = rounded(normal_values(random, kHeads * rows * d), element);
  }
  const KeyCodec& codec(std::size_t head) const { return *codecs[codecs.size() == 1 ? 0 : head]; }
  std::vector<float> head(std::size_t h) const {
    const auto begin = x.begin() + static_cast<std::ptrdiff_t>(h * rows * d);
    return {begin, begin + static_cast<std::ptrdiff_t>(rows * d)};
  }
  gpu::VectorView view(void* data) const {
    return {data, 0, static_cast<gpu::i64>(rows * d), static_cast<gpu::i64>(d)};
  }
};

Differences check_canonical(const KeySample& sample, gpu::GpuKeyCodec& codec, double& decode_error) {
  const gpu::KeySpec& spec = codec.spec();
  const std::size_t rows = sample.rows, d = sample.d, all = kHeads * rows;
  const DeviceInput in(sample.x, sample.element);
  const Guarded<std::uint8_t> codes(all * packed_bytes(d, spec.table_bits)),
      signs(spec.prod ? all * d / 8 : 0);
  const Guarded<std::uint16_t> scales(all), norms(spec.prod ? all : 0);
  const gpu::CanonicalKeys out{codes.data(), scales.data(), signs.data(), norms.data()};
  codec.encode(sample.view(in.data()), sample.element, kHeads, static_cast<int>(rows), out, {});
  const Guarded<float> back(all * d);
  codec.decode(out, kHeads, static_cast<int>(rows), sample.view(back.data()), Element::f32, {});
  const auto host_codes = codes.read(), host_signs = signs.read();
  const auto host_scales = scales.read(), host_norms = norms.read();
  const std::vector<float> decoded = back.read();
  Differences differences;
  for (std::size_t h = 0; h < kHeads; ++h) {
    const EncodedKeys is =
        head_rows(sample.codec(h), h, rows, host_codes, host_scales, host_signs, host_norms);
    differences.add(compare_keys(sample.codec(h), sample.head(h), is));
    std::vector<float> expected(rows * d);
    sample.codec(h).decode(is, expected.data());
    const double error = reference::relative_error(
        reference::widen(std::span(decoded).subspan(h * rows * d, rows * d)), reference::widen(expected));
    if (!(error <= decode_error)) decode_error = error;
  }
  return differences;
}

// Encodes in pieces into tiles, which must equal what one piece gives, and converts them to core's rows.
// `halves`: what the sample's values become where they are rounded to binary16 on the way, or null.
Differences check_tiles(const KeySample& sample, const KeySample* halves, gpu::GpuKeyCodec& codec, Side side,
                        double& decode_error, Random& random) {
  const gpu::KeySpec& spec = codec.spec();
  const std::size_t rows = sample.rows, d = sample.d, tiles = (rows + 63) / 64;
  const std::size_t tile_size = static_cast<std::size_t>(gpu::tile_bytes(spec));
  const DeviceInput in(sample.x, sample.element);
  const auto encode = [&](const std::vector<std::size_t>& cuts) {
    const Guarded<std::uint8_t> out(tiles * kHeads * tile_size);
    const gpu::TileView view{
        out.data(), static_cast<gpu::i64>(kHeads * tile_size), static_cast<gpu::i64>(tile_size), 0, nullptr,
        0};
    std::size_t first = 0;
    for (const std::size_t cut : cuts) {
      gpu::Ranges ranges = gpu::one_range(static_cast<int>(first), static_cast<int>(cut - first));
      ranges.one.source = static_cast<int>(first);
      codec.encode(sample.view(in.data()), sample.element, kHeads, ranges, view, halves != nullptr, {});
      first = cut;
    }
    const Guarded<float> back(kHeads * rows * d);
    codec.decode(view, kHeads, gpu::one_range(0, static_cast<int>(rows)), sample.view(back.data()),
                 Element::f32, {});
    return std::pair(out.read(), back.read());
  };
  const auto [whole, decoded] = encode({rows});
  std::vector<std::size_t> cuts;
  for (std::size_t at = 0; at < rows;)
    cuts.push_back(at = std::min<std::size_t>(rows, at + 1 + random.below(50)));
  CHECK(encode(cuts).first == whole);

  Differences differences;
  for (std::size_t h = 0; h < kHeads; ++h) {
    EncodedKeys is;
    is.rows = rows;
    const std::size_t code_bytes = packed_bytes(d, spec.table_bits);
    is.codes.resize(rows * code_bytes);
    is.scales.resize(rows);
    is.signs.resize(spec.prod ? rows * d / 8 : 0);
    is.residual_norms.resize(spec.prod ? rows : 0);
    for (std::size_t t = 0; t < tiles; ++t) {
      const KeyBlock block{is.codes.data() + t * 64 * code_bytes, is.scales.data() + t * 64,
                           spec.prod ? is.signs.data() + t * 64 * (d / 8) : nullptr,
                           spec.prod ? is.residual_norms.data() + t * 64 : nullptr};
      gpu::tile_to_keys(spec, side, sample.codec(h), whole.data() + (t * kHeads + h) * tile_size,
                        static_cast<int>(std::min<std::size_t>(64, rows - t * 64)), block);
    }
    differences.add(compare_keys(sample.codec(h), (halves != nullptr ? *halves : sample).head(h), is));
    std::vector<float> expected(rows * d);
    sample.codec(h).decode(is, expected.data());
    const double error = reference::relative_error(
        reference::widen(std::span(decoded).subspan(h * rows * d, rows * d)), reference::widen(expected));
    if (!(error <= decode_error)) decode_error = error;
  }
  return differences;
}

}  // namespace

TEST_CASE("codes, scales, signs and norms equal core's but on boundaries; decoding equals core's") {
  struct Case {
    int d, bits, variant;
  };
  std::vector<Case> cases;
  for (const int d : gpu::kGpuHeadDims) {
    for (int bits = 2; bits <= 4; ++bits) {
      for (int variant = 0; variant < 5; ++variant) cases.push_back({d, bits, variant});
    }
  }
  std::mutex mutex;
  Differences total;
  double worst = 0;
  const Element elements[] = {Element::f32, Element::f16, Element::bf16};
  in_parallel(11, cases.size(), [&](std::size_t i, Random& random) {
    const auto [d, bits, variant] = cases[i];
    KeyConfig key;
    key.bits = bits;
    key.mode = variant < 3 ? KeyMode::mse : KeyMode::prod;
    key.scale = static_cast<ScaleRule>(variant % 3);
    key.sketch = variant == 3 ? SketchKind::gaussian : SketchKind::orthogonal;
    const std::size_t rows = 1 + random.below(200);
    const KeySample sample(d, key, random.below(2) == 0, rows, elements[random.below(3)], random);
    double decode_error = 0;
    gpu::GpuKeyCodec codec(gpu(), sample.codecs, Side::keys);
    Differences differences = check_canonical(sample, codec, decode_error);
    differences.add(check_tiles(sample, nullptr, codec, Side::keys, decode_error, random));
    if (key.mode == KeyMode::mse) {
      gpu::GpuKeyCodec values(gpu(), sample.codecs, Side::values);
      differences.add(check_tiles(sample, nullptr, values, Side::values, decode_error, random));
    }
    CHECK_MESSAGE(differences.explained(), "d ", d, " ", describe(key), " rows ", rows, ": ",
                  differences.codes, " codes, ", differences.near_boundary, " near a boundary; ",
                  differences.signs, " signs, ", differences.near_zero, " near 0; ", differences.scalars,
                  " scalars, ", differences.one_ulp, " by one ulp");
    CHECK_MESSAGE(decode_error < 2e-6, "d ", d, " ", describe(key), ": ", decode_error);
    const std::lock_guard lock(mutex);
    total.add(differences);
    if (!(decode_error <= worst)) worst = decode_error;
  });
  MESSAGE(cases.size(), " specialisations, ", total.compared, " coordinates: ", total.codes,
          " codes differ, all within 1e-6 of a boundary; ", total.signs, " signs near 0; ", total.scalars,
          " scalars by one unit in the last place; decoding to ", worst);
}

TEST_CASE("tiles of halves, and of what becomes halves, hold core's codes, hard vectors among others") {
  struct Case {
    int d, bits;
    ScaleRule scale;
    Element element;
    Side side;
  };
  std::vector<Case> cases;
  for (const int d : {64, 128, 256}) {
    for (int bits = 2; bits <= 4; ++bits) {
      for (const ScaleRule scale : {ScaleRule::norm, ScaleRule::nc, ScaleRule::ls}) {
        for (const Element element : {Element::f16, Element::f32, Element::bf16}) {
          for (const Side side : {Side::keys, Side::values}) cases.push_back({d, bits, scale, element, side});
        }
      }
    }
  }
  std::mutex mutex;
  Differences total;
  in_parallel(14, cases.size(), [&](std::size_t i, Random& random) {
    const auto [d, bits, scale, element, side] = cases[i];
    const KeyConfig key{KeyMode::mse, bits, scale, SketchKind::orthogonal};
    KeySample sample(d, key, random.below(2) == 0, 65 + random.below(400), element, random);
    const auto change = [&](std::size_t row, const auto& f) {
      for (std::size_t j = 0; j < sample.d; ++j) {
        float& value = sample.x[row * sample.d + j];
        value = f(j, value);
      }
    };
    change(3, [](std::size_t, float) { return 0.0f; });
    change(10, [](std::size_t j, float v) { return j == 33 ? 60000.0f : 1e-4f * v; });
    change(20, [](std::size_t, float v) { return 1e-6f * v; });              // subnormal
    change(21, [](std::size_t j, float) { return j == 5 ? 6e-8f : 0.0f; });  // the smallest half
    const float large = element == Element::f16 ? 65504.0f : 1e5f;           // saturates
    change(30, [large](std::size_t, float v) { return v > 0 ? large : -large; });
    sample.x = rounded(sample.x, element);
    KeySample halves = sample;
    for (float& value : halves.x) value = half_to_float(float_to_half_saturate(value));
    gpu::GpuKeyCodec codec(gpu(), sample.codecs, side);
    double decode_error = 0;
    const Differences differences = check_tiles(sample, &halves, codec, side, decode_error, random);
    CHECK_MESSAGE(differences.explained(), "d ", d, " ", describe(key), ": ", differences.codes, " codes, ",
                  differences.near_boundary, " near a boundary; ", differences.scalars, " scalars, ",
                  differences.one_ulp, " by one ulp");
    CHECK_MESSAGE(decode_error < 2e-6, "d ", d, " ", describe(key), ": ", decode_error);
    const std::lock_guard lock(mutex);
    total.add(differences);
  });
  MESSAGE(cases.size(), " specialisations, ", total.compared, " coordinates: ", total.codes,
          " codes differ, all within 1e-6 of a boundary; ", total.scalars,
          " scalars by one unit in the last place");
}

TEST_CASE("halves from rings and ranges in device memory; an infinity or a NaN spoils its own token only") {
  Random random = test_random(15);
  constexpr std::size_t d = 128, kSlots = 300, kTiles = 3, kSequences = 4;
  const KeyConfig key{KeyMode::mse, 3, ScaleRule::nc, SketchKind::orthogonal};
  for (const Side side : {Side::keys, Side::values}) {
    KeySample sample(static_cast<int>(d), key, true, kSlots, Element::f16, random);
    gpu::GpuKeyCodec codec(gpu(), sample.codecs, side);
    const std::vector<gpu::TokenRange> ranges{
        {0, 128, 250, 280, 20}, {37, 150, 11, 0, 0}, {0, 0, 0, 0, 0}, {64, 64, 90, 0, 0}};
    const Guarded<gpu::TokenRange> on_device(ranges);
    gpu::Ranges all;
    all.device = on_device.data();
    all.sequences = static_cast<int>(kSequences);
    all.most_tiles = static_cast<int>(kTiles);
    all.most_tokens = 150;
    const std::size_t tile_size = static_cast<std::size_t>(gpu::tile_bytes(codec.spec()));
    const auto encode = [&] {
      const DeviceInput in(sample.x, Element::f16);
      const Guarded<std::uint8_t> out(kSequences * kTiles * kHeads * tile_size);
      const gpu::i64 size = static_cast<gpu::i64>(tile_size);
      codec.encode(
          sample.view(in.data()), Element::f16, kHeads, all,
          {out.data(), kHeads * size, size, static_cast<gpu::i64>(kTiles) * kHeads * size, nullptr, 0}, false,
          {});
      return out.read();
    };
    // Calls body(head, slot, the token's codes and scale) for all tokens.
    const auto for_tokens = [&](const std::vector<std::uint8_t>& tiles, const auto& body) {
      for (std::size_t s = 0; s < kSequences; ++s) {
        for (std::size_t h = 0; h < kHeads; ++h) {
          for (int i = 0; i < ranges[s].count; ++i) {
            const std::size_t token = static_cast<std::size_t>(ranges[s].first + i), in_tile = token % 64;
            std::vector<std::uint8_t> codes(64 * packed_bytes(d, 3));
            std::vector<std::uint16_t> scales(64);
            gpu::tile_to_keys(codec.spec(), side, sample.codec(h),
                              tiles.data() + ((s * kTiles + token / 64) * kHeads + h) * tile_size, 64,
                              {codes.data(), scales.data(), nullptr, nullptr});
            EncodedKeys one;
            one.rows = 1;
            const auto begin = codes.begin() + static_cast<std::ptrdiff_t>(in_tile * packed_bytes(d, 3));
            one.codes.assign(begin, begin + static_cast<std::ptrdiff_t>(packed_bytes(d, 3)));
            one.scales = {scales[in_tile]};
            int slot = ranges[s].source + i;
            if (ranges[s].ring != 0)
              slot = ranges[s].ring_begin + (slot - ranges[s].ring_begin) % ranges[s].ring;
            body(h, static_cast<std::size_t>(slot), one);
          }
        }
      }
    };
    const auto unexplained = [&](const std::vector<std::uint8_t>& tiles, const auto& skip) {
      std::size_t wrong = 0;
      for_tokens(tiles, [&](std::size_t h, std::size_t slot, const EncodedKeys& is) {
        if (skip(h, slot)) return;
        const auto begin = sample.x.begin() + static_cast<std::ptrdiff_t>((h * kSlots + slot) * d);
        const std::vector<float> row(begin, begin + static_cast<std::ptrdiff_t>(d));
        wrong += compare_keys(sample.codec(h), row, is).explained() ? 0 : 1;
      });
      return wrong;
    };
    CHECK(unexplained(encode(), [](std::size_t, std::size_t) { return false; }) == 0);
    sample.x[(kSlots + 100) * d + 7] = std::numeric_limits<float>::infinity();
    sample.x[(kSlots + 101) * d] = std::numeric_limits<float>::quiet_NaN();
    CHECK(unexplained(encode(), [](std::size_t h, std::size_t slot) {
            return h == 1 && (slot == 100 || slot == 101);
          }) == 0);
  }
}

TEST_CASE("group values equal core's") {
  struct Case {
    int d, bits, size;
  };
  std::vector<Case> cases;
  for (const int d : gpu::kGpuHeadDims) {
    for (const int bits : {2, 3, 4, 8}) {
      for (const int size : {16, 32, 64, 128}) {
        if (d % size == 0) cases.push_back({d, bits, size});
      }
    }
  }
  std::mutex mutex;
  std::size_t differ = 0, compared = 0;
  double worst = 0;
  const Element elements[] = {Element::f32, Element::f16, Element::bf16};
  in_parallel(12, cases.size(), [&](std::size_t i, Random& random) {
    const auto [d, bits, size] = cases[i];
    const ValueConfig config{ValueMode::group, bits, size, ScaleRule::nc};
    const ValueCodec host(config, d, nullptr, Codebook());
    gpu::GpuValueCodec codec(gpu(), {&host});
    const Element element = elements[random.below(3)];
    const std::size_t n = static_cast<std::size_t>(d), rows = 1 + random.below(150),
                      groups = n / static_cast<std::size_t>(size);
    const std::vector<float> x = rounded(normal_values(random, rows * n), element);
    const DeviceInput in(x, element);
    const gpu::VectorView view{in.data(), 0, 0, d};
    EncodedValues encoded;
    host.encode(x.data(), rows, encoded);
    const EncodedGroups& should = std::get<EncodedGroups>(encoded);

    const Guarded<std::uint8_t> codes(should.codes.size());
    const Guarded<std::uint16_t> zeros(should.zeros.size()), scales(should.scales.size());
    codec.encode(view, element, 1, static_cast<int>(rows),
                 gpu::CanonicalGroups{codes.data(), zeros.data(), scales.data()}, {});
    const Guarded<float> back(rows * n);
    codec.decode(gpu::CanonicalGroups{codes.data(), zeros.data(), scales.data()}, 1, static_cast<int>(rows),
                 {back.data(), 0, 0, d}, Element::f32, {});
    INFO("d ", d, " ", describe(config), " rows ", rows);
    CHECK(zeros.read() == should.zeros);
    CHECK(scales.read() == should.scales);
    const auto is = codes.read();
    std::size_t different = 0;
    for (std::size_t k = 0; k < is.size(); ++k) different += is[k] != should.codes[k] ? 1 : 0;
    std::vector<float> expected(rows * n);
    host.decode(encoded, expected.data());
    const double error = reference::relative_error(reference::widen(back.read()), reference::widen(expected));
    {
      const std::lock_guard lock(mutex);
      differ += different;
      compared += is.size();
      if (!(error <= worst)) worst = error;
    }

    // The same through tiles, in two pieces.
    const gpu::GroupSpec& spec = codec.spec().group;
    const std::size_t tiles = (rows + 63) / 64, tile_size = static_cast<std::size_t>(gpu::tile_bytes(spec));
    const Guarded<std::uint8_t> pages(tiles * tile_size);
    const gpu::TileView tile_view{pages.data(), static_cast<gpu::i64>(tile_size), 0, 0, nullptr, 0};
    const int cut = static_cast<int>(random.below(static_cast<std::uint32_t>(rows) + 1));
    codec.encode(view, element, 1, gpu::one_range(0, cut), tile_view, false, {});
    gpu::Ranges rest = gpu::one_range(cut, static_cast<int>(rows) - cut);
    rest.one.source = cut;
    codec.encode(view, element, 1, rest, tile_view, false, {});
    const auto stored = pages.read();
    EncodedGroups from_tiles{rows, std::vector<std::uint8_t>(should.codes.size()),
                             std::vector<std::uint16_t>(should.zeros.size()),
                             std::vector<std::uint16_t>(should.scales.size())};
    for (std::size_t t = 0; t < tiles; ++t) {
      gpu::tile_to_groups(
          spec, stored.data() + t * tile_size, static_cast<int>(std::min<std::size_t>(64, rows - t * 64)),
          {from_tiles.codes.data() + t * 64 * packed_bytes(n, bits),
           from_tiles.zeros.data() + t * 64 * groups, from_tiles.scales.data() + t * 64 * groups});
    }
    CHECK(from_tiles.codes == is);
    CHECK(from_tiles.zeros == should.zeros);
    CHECK(from_tiles.scales == should.scales);
  });
  // The same divisions and roundings: not one code may differ.
  CHECK(differ == 0);
  CHECK(worst < 2e-7);
  MESSAGE(compared, " bytes of codes, ", differ, " differ; decoding to ", worst);
}

TEST_CASE("rotated and sketched queries equal core's") {
  Random random = test_random(13);
  double worst = 0;
  for (const int d : {64, 80, 96, 128, 192, 256}) {
    for (int variant = 0; variant < 4; ++variant) {
      KeyConfig key;
      key.mode = KeyMode::prod;
      key.sketch = variant % 2 == 0 ? SketchKind::gaussian : SketchKind::orthogonal;
      const CacheLayer layer = codec_layer(d, 1, key, ValueConfig{}, false, random);
      const KeyCodec& host = layer.key_codec(0);
      gpu::GpuKeyCodec codec(gpu(), {&host}, Side::keys);
      const std::size_t n = static_cast<std::size_t>(d), rows = 1 + random.below(70);
      const Element element = variant < 2 ? Element::f32 : Element::f16;
      const std::vector<float> q = rounded(normal_values(random, rows * n), element);
      const DeviceInput in(q, element);
      const Guarded<float> rotated(rows * n), sketched(rows * n);
      codec.prepare(in.data(), element, static_cast<gpu::i64>(rows), rotated.data(), sketched.data(), {});
      const reference::Matrix pi = reference::dense(host.rotation()), s = reference::dense(*host.sketch());
      const auto is_rotated = rotated.read(), is_sketched = sketched.read();
      for (std::size_t r = 0; r < rows; ++r) {
        const reference::Vector y = reference::multiply(pi, reference::widen(std::span(q).subspan(r * n, n)));
        const double a =
            reference::relative_error(reference::widen(std::span(is_rotated).subspan(r * n, n)), y);
        const double b = reference::relative_error(reference::widen(std::span(is_sketched).subspan(r * n, n)),
                                                   reference::multiply(s, y));
        if (!(a <= worst)) worst = a;
        if (!(b <= worst)) worst = b;
      }
    }
  }
  CHECK(worst < 2e-6);
  MESSAGE("largest relative error ", worst);
}

}  // namespace tq::test
