#include <cmath>
#include <cstdlib>
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
Differences check_tiles(const KeySample& sample, gpu::GpuKeyCodec& codec, Side side, double& decode_error,
                        Random& random) {
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
      codec.encode(sample.view(in.data()), sample.element, kHeads, ranges, view, false, {});
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
    differences.add(compare_keys(sample.codec(h), sample.head(h), is));
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
    differences.add(check_tiles(sample, codec, Side::keys, decode_error, random));
    if (key.mode == KeyMode::mse) {
      gpu::GpuKeyCodec values(gpu(), sample.codecs, Side::values);
      differences.add(check_tiles(sample, values, Side::values, decode_error, random));
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
