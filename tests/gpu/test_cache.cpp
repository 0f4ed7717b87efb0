#include <cmath>
#include <sstream>

#include "core/error.h"
#include "tests/gpu/gpu_support.h"
#include "tests/support/cache_samples.h"
#include "tests/support/reference.h"
#include "tests/support/test_seed.h"

namespace tq::test {
namespace {

using gpu::Element;

// Appends tokens [begin, end) of the sample to both.
void append_to_both(gpu::GpuKvCache& device, KvCache& host, int layer, int sequence,
                    const SampleTokens& sample, std::size_t begin, std::size_t end) {
  const auto slice = [&](const std::vector<float>& all) {
    return std::vector<float>(all.begin() + static_cast<std::ptrdiff_t>(begin * sample.width),
                              all.begin() + static_cast<std::ptrdiff_t>(end * sample.width));
  };
  const DeviceInput k(slice(sample.k), Element::f32), v(slice(sample.v), Element::f32);
  device.append(layer, sequence, k.vectors(), v.vectors(), end - begin);
  gpu().device().synchronize();
  sample.append_to(host, layer, sequence, begin, end);
}

// Bytes in which two saved caches differ.
std::size_t differing_bytes(const KvCache& a, const KvCache& b) {
  const std::string x = saved(a), y = saved(b);
  if (x.size() != y.size()) return std::max(x.size(), y.size());
  std::size_t differ = 0;
  for (std::size_t i = 0; i + 32 < x.size(); ++i) differ += x[i] != y[i] ? 1 : 0;  // the digest left aside
  return differ;
}

}  // namespace

TEST_CASE("the cache holds what the host's holds, however the tokens came, and attends alike") {
  Random random = test_random(41);
  std::size_t differ = 0, bytes = 0;
  double worst = 0;
  for (const int d : {64, 128, 80}) {
    for (const CachePolicy policy : {CachePolicy{128, 0, 1}, CachePolicy{100, 4, 16}, CachePolicy{0, 0, 1}}) {
      std::vector<CacheLayer> layers;
      for (CacheLayer& layer : sample_layers(d, 2, random)) {
        try {
          gpu::GpuKvCache(gpu(), {layer}, policy);
          layers.push_back(std::move(layer));
        } catch (const UsageError&) {  // bits or groups without kernels
        }
      }
      REQUIRE(layers.size() >= 3);
      constexpr int kBatch = 2;
      gpu::GpuKvCache device(gpu(), layers, policy, kBatch);
      KvCache host(layers, policy, kBatch);
      for (int l = 0; l < device.layers(); ++l) {
        for (int s = 0; s < kBatch; ++s) {
          const std::size_t total = s == 0 ? 130 + random.below(300) : random.below(140);
          const SampleTokens sample(device.layer(l), total, random);
          for (std::size_t at = 0; at < total;) {
            const std::size_t next = std::min(total, at + 1 + random.below(at == 0 ? 200 : 9));
            append_to_both(device, host, l, s, sample, at, next);
            at = next;
          }
          CHECK(device.tokens(l, s) == host.tokens(l, s));
        }
        const Agreement agreement =
            check_attend(device, l, 2 * (1 + static_cast<int>(random.below(6))), Element::f32, random);
        CHECK_MESSAGE(agreement.worst_error < 2e-3, describe(device.layer(l)), ": ", describe(agreement));
        if (!(agreement.worst_error <= worst)) worst = agreement.worst_error;
      }
      const KvCache copy = device.to_host();
      differ += differing_bytes(copy, host);
      bytes += saved(host).size();
      CacheBytes is = device.bytes_used(), should = host.bytes_used();
      is.allocated = should.allocated = 0;
      CHECK(is == should);

      // Back onto the device: the same bytes, and it goes on from there.
      gpu::GpuKvCache again(gpu(), layers, policy, kBatch);
      again.from_host(copy);
      CHECK(saved(again.to_host()) == saved(copy));
      KvCache reference(layers, policy, kBatch);
      std::istringstream stream(saved(copy));
      reference.restore(stream);
      const SampleTokens more(device.layer(0), 40, random);
      append_to_both(again, reference, 0, 0, more, 0, 40);
      differ += differing_bytes(again.to_host(), reference);
    }
  }
  // A code on a boundary moves a byte of codes and perhaps its scale's last bit.
  CHECK(differ * 20000 < bytes);
  MESSAGE(bytes, " bytes stored, ", differ, " differ from the host's; attention to ", worst);
}

TEST_CASE("one token at a time to a whole batch, as a model decodes") {
  Random random = test_random(42);
  const KeyConfig key{KeyMode::mse, 3, ScaleRule::nc, SketchKind::orthogonal};
  const CacheLayer layer = codec_layer(128, 2, key, ValueConfig{}, true, random);
  const CachePolicy policy{32, 2, 1};
  constexpr int kBatch = 3;
  constexpr std::size_t kSteps = 120;
  gpu::GpuKvCache device(gpu(), {layer}, policy, kBatch);
  KvCache host({layer}, policy, kBatch);
  for (std::size_t step = 0; step < kSteps; ++step) {
    const SampleTokens sample(layer, kBatch, random);
    const DeviceInput k(sample.k, Element::f32), v(sample.v, Element::f32);
    device.append_batch(0, k.vectors(), v.vectors());
    gpu().device().synchronize();
    for (int s = 0; s < kBatch; ++s)
      sample.append_to(host, 0, s, static_cast<std::size_t>(s), static_cast<std::size_t>(s) + 1);
    if (step % 17 == 0) {
      const Agreement agreement = check_attend(device, 0, 8, Element::f16, random);
      CHECK_MESSAGE(agreement.worst_error < 2e-3, "step ", step, ": ", describe(agreement));
    }
  }
  CHECK(differing_bytes(device.to_host(), host) < 20);
}

TEST_CASE("growth neither copies nor moves: earlier pages keep their bytes") {
  Random random = test_random(43);
  const CacheLayer layer = codec_layer(64, 1, {}, ValueConfig{}, false, random);
  gpu::GpuKvCache device(gpu(), {layer}, {0, 0, 1});
  const SampleTokens first(layer, 640, random);
  const DeviceInput k(first.k, Element::f32), v(first.v, Element::f32);
  device.append(0, 0, k.vectors(), v.vectors(), 640);
  const KvCache before = device.to_host();
  for (int i = 0; i < 80; ++i) device.append(0, 0, k.vectors(), v.vectors(), 640);
  const KvCache after = device.to_host();
  for (std::size_t page = 0; page < 10; ++page) {
    const ConstKeyBlock a = before.store(0, 0).keys(page, 0), b = after.store(0, 0).keys(page, 0);
    CHECK(std::equal(a.codes, a.codes + 64 * 24, b.codes));
    CHECK(std::equal(a.scales, a.scales + 64, b.scales));
  }
  CHECK(device.tokens(0, 0) == 81 * 640);
}

TEST_CASE("scores of the quantised tokens") {
  Random random = test_random(44);
  const CacheLayer layer = codec_layer(128, 2, {KeyMode::prod, 3, ScaleRule::nc, SketchKind::orthogonal},
                                       ValueConfig{}, true, random);
  gpu::GpuKvCache device(gpu(), {layer}, {10, 0, 1});
  const SampleTokens sample(layer, 333, random);
  const DeviceInput k(sample.k, Element::f16), v(sample.v, Element::f16);
  device.prefill(0, 0, k.vectors(), v.vectors(), 333);
  const std::vector<float> q = normal_values(random, 8 * 128);
  const DeviceInput queries(q, Element::f32);
  const Guarded<float> out(8 * 323);
  device.quantised_scores(0, 0, queries.vectors(), 8, 1.0f, out.data(), 323);
  std::vector<float> expected(8 * 333);
  device.to_host().scores(0, 0, q.data(), 8, expected.data());
  const std::vector<float> is = out.read();
  for (std::size_t h = 0; h < 8; ++h) {
    CHECK(reference::relative_error(reference::widen(std::span(is).subspan(h * 323, 323)),
                                    reference::widen(std::span(expected).subspan(h * 333, 323))) < 2e-3);
  }
}

TEST_CASE("what has no kernels is refused by name") {
  Random random = test_random(45);
  CHECK_THROWS_AS(gpu::GpuKvCache(gpu(), {codec_layer(112, 1, {}, ValueConfig{}, false, random)}, {}),
                  UsageError);
  CHECK_THROWS_AS(
      gpu::GpuKvCache(gpu(),
                      {codec_layer(128, 1, {KeyMode::mse, 6, ScaleRule::nc, SketchKind::orthogonal},
                                   ValueConfig{}, false, random)},
                      {}),
      UsageError);
  CHECK_THROWS_AS(
      gpu::GpuKvCache(gpu(),
                      {codec_layer(128, 1, {}, {ValueMode::group, 3, 8, ScaleRule::nc}, false, random)}, {}),
      UsageError);
  gpu::GpuKvCache cache(gpu(), {codec_layer(64, 2, {}, ValueConfig{}, false, random)}, {});
  const Guarded<float> memory(1024);
  CHECK_THROWS_AS(cache.attend_batch(0, {memory.data(), Element::f32}, 3, 1, memory.data(), Element::f32),
                  UsageError);
  CHECK_THROWS_AS(cache.attend_batch(0, {memory.data(), Element::f32}, 34, 1, memory.data(), Element::f32),
                  UsageError);
  CHECK_THROWS_AS(cache.append(0, 0, {memory.data() + 1, Element::f32}, {memory.data(), Element::f32}, 1),
                  UsageError);
}

}  // namespace tq::test
