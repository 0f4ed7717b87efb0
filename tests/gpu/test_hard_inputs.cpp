#include <cmath>
#include <limits>

#include "core/error.h"
#include "jit/memory.h"
#include "tests/gpu/gpu_support.h"
#include "tests/support/cache_samples.h"
#include "tests/support/reference.h"
#include "tests/support/test_seed.h"

namespace tq::test {
namespace {

using gpu::Element;

std::vector<CacheLayer> layers_for_hard_inputs(int d, Random& random) {
  return {codec_layer(d, 1, {KeyMode::mse, 4, ScaleRule::nc, SketchKind::orthogonal},
                      {ValueMode::rotated, 4, 32, ScaleRule::nc}, false, random),
          codec_layer(d, 1, {KeyMode::prod, 3, ScaleRule::nc, SketchKind::orthogonal},
                      {ValueMode::group, 3, 32, ScaleRule::nc}, false, random),
          codec_layer(d, 1, {KeyMode::mse, 2, ScaleRule::ls, SketchKind::orthogonal},
                      {ValueMode::group, 8, 64, ScaleRule::nc}, false, random),
          exact_layer(d, 1)};
}

// Keys and values of 200 tokens, changed by `harm`, against the reference over what was stored.
template <typename Harm>
void check(const char* what, double tolerance, const Harm& harm, Random& random) {
  constexpr std::size_t kTokens = 200, d = 128;
  for (const CacheLayer& layer : layers_for_hard_inputs(static_cast<int>(d), random)) {
    gpu::GpuKvCache cache(gpu(), {layer}, {16, 2, 1});
    std::vector<float> k = normal_values(random, kTokens * d), v = normal_values(random, kTokens * d);
    harm(k, v);
    const DeviceInput keys(k, Element::f32), values(v, Element::f32);
    cache.prefill(0, 0, keys.vectors(), values.vectors(), kTokens);
    const Agreement agreement = check_attend(cache, 0, 4, Element::f32, random);
    CHECK_MESSAGE(agreement.worst_error < tolerance, what, ", ", describe(layer), ": ", describe(agreement));
  }
}

}  // namespace

TEST_CASE("zero vectors, huge coordinates, extremes of binary16, denormals") {
  Random random = test_random(51);
  check(
      "all keys zero", 2e-3,
      [](std::vector<float>& k, std::vector<float>&) { std::fill(k.begin(), k.end(), 0.0f); }, random);
  check(
      "some tokens zero", 2e-3,
      [](std::vector<float>& k, std::vector<float>& v) {
        for (std::size_t t = 0; t < 200; t += 3) {
          std::fill_n(k.begin() + static_cast<std::ptrdiff_t>(t * 128), 128, 0.0f);
          std::fill_n(v.begin() + static_cast<std::ptrdiff_t>(t * 128), 128, 0.0f);
        }
      },
      random);
  check(
      "one huge value", 2e-3, [](std::vector<float>&, std::vector<float>& v) { v[50 * 128 + 7] = 60000; },
      random);
  check(
      "one large key", 4e-3, [](std::vector<float>& k, std::vector<float>&) { k[50 * 128 + 7] = 40; },
      random);
  check(
      "values at the end of binary16", 2e-3,
      [](std::vector<float>&, std::vector<float>& v) {
        for (float& x : v) x = x > 0 ? 65504.0f : -65504.0f;
      },
      random);
  check(
      "tiny values", 2e-3,
      [](std::vector<float>&, std::vector<float>& v) {
        for (float& x : v) x *= 1e-3f;
      },
      random);
  check(
      "denormal keys", 2e-3,
      [](std::vector<float>& k, std::vector<float>&) {
        for (float& x : k) x *= 1e-6f;
      },
      random);
  check(
      "constant values", 2e-3,
      [](std::vector<float>&, std::vector<float>& v) { std::fill(v.begin(), v.end(), 3.25f); }, random);
}

TEST_CASE("a NaN or an infinity in a query stays in its own row; a huge query does not overflow") {
  Random random = test_random(52);
  for (const CacheLayer& layer : layers_for_hard_inputs(128, random)) {
    gpu::GpuKvCache cache(gpu(), {layer}, {16, 0, 1});
    const SampleTokens sample(layer, 300, random);
    const DeviceInput k(sample.k, Element::f16), v(sample.v, Element::f16);
    cache.prefill(0, 0, k.vectors(), v.vectors(), 300);
    std::vector<float> q = normal_values(random, 8 * 128);
    q[2 * 128 + 5] = std::numeric_limits<float>::quiet_NaN();
    q[5 * 128 + 9] = std::numeric_limits<float>::infinity();
    for (std::size_t j = 0; j < 128; ++j) q[6 * 128 + j] *= 1e-20f;
    const DeviceInput queries(q, Element::f32);
    const Guarded<float> out(8 * 128), lse(8);
    cache.attend_batch(0, queries.vectors(), 8, 0.088f, out.data(), Element::f32, lse.data());
    const std::vector<float> is = out.read();
    const KvCache host = cache.to_host();
    const Attention should = reference_attention(host, 0, 0, q, 8, static_cast<double>(0.088f));
    for (std::size_t h = 0; h < 8; ++h) {
      const reference::Vector row = reference::widen(std::span(is).subspan(h * 128, 128));
      if (h == 2 || h == 5) {
        CHECK(std::isnan(row[0]));
        continue;
      }
      INFO(describe(layer), " head ", h);
      CHECK(reference::relative_error(row, std::span(should.out).subspan(h * 128, 128)) < 2e-3);
    }
  }
}

TEST_CASE("a NaN key or value reaches the outputs of its own KV head and no other") {
  Random random = test_random(53);
  const CacheLayer layer = codec_layer(128, 2, {KeyMode::mse, 3, ScaleRule::nc, SketchKind::orthogonal},
                                       {ValueMode::rotated, 3, 32, ScaleRule::nc}, false, random);
  gpu::GpuKvCache cache(gpu(), {layer}, {0, 0, 1});
  SampleTokens sample(layer, 100, random);
  sample.k[40 * 256 + 3] = std::numeric_limits<float>::quiet_NaN();
  const DeviceInput k(sample.k, Element::f32), v(sample.v, Element::f32);
  cache.prefill(0, 0, k.vectors(), v.vectors(), 100);
  const DeviceInput q(normal_values(random, 4 * 128), Element::f32);
  const Guarded<float> out(4 * 128);
  cache.attend_batch(0, q.vectors(), 4, 0.1f, out.data(), Element::f32);
  const std::vector<float> is = out.read();
  CHECK(std::isnan(is[0]));
  for (std::size_t i = 2 * 128; i < 4 * 128; ++i) CHECK(std::isfinite(is[i]));
}

TEST_CASE("empty caches and empty calls") {
  Random random = test_random(54);
  for (const CacheLayer& layer : layers_for_hard_inputs(128, random)) {
    gpu::GpuKvCache cache(gpu(), {layer}, {16, 0, 1}, 2);
    const Guarded<float> memory(2 * 4 * 128);
    cache.append(0, 0, {memory.data(), Element::f32}, {memory.data(), Element::f32}, 0);
    const DeviceInput q(normal_values(random, 2 * 4 * 128), Element::f32);
    const Guarded<float> out(2 * 4 * 128), lse(8);
    cache.attend_batch(0, q.vectors(), 4, 1, out.data(), Element::f32, lse.data());
    for (const float x : out.read()) CHECK(x == 0);
    for (const float x : lse.read()) CHECK(x == -std::numeric_limits<float>::infinity());
  }
}

TEST_CASE("offsets beyond 2^31 bytes: a long cache's last tokens count") {
  const std::size_t tokens = 9'000'000;  // 9e6 x 2 x 132 bytes
  if (gpu().device().free_bytes() < std::size_t{12} << 30) {
    MESSAGE("skipped: not enough device memory");
    return;
  }
  Random random = test_random(55);
  const CacheLayer layer = codec_layer(128, 2, {KeyMode::mse, 4, ScaleRule::nc, SketchKind::orthogonal},
                                       {ValueMode::rotated, 4, 32, ScaleRule::nc}, false, random);
  gpu::GpuKvCache cache(gpu(), {layer}, {0, 0, 1});
  // The same 500,000 tokens again and again: of length 1 but for one at the end that queries are made for.
  constexpr std::size_t kPiece = 500'000, kWidth = 256;
  std::vector<float> k = normal_values(random, 1000 * kWidth, 0.1), v = normal_values(random, 1000 * kWidth);
  std::vector<float> keys, values;
  for (std::size_t i = 0; i < kPiece / 1000; ++i) {
    keys.insert(keys.end(), k.begin(), k.end());
    values.insert(values.end(), v.begin(), v.end());
  }
  {
    const DeviceInput dk(keys, Element::f16), dv(values, Element::f16);
    for (std::size_t done = 0; done < tokens; done += kPiece)
      cache.append(0, 0, dk.vectors(), dv.vectors(), kPiece);
    gpu().device().synchronize();
  }
  std::vector<float> last = normal_values(random, kWidth, 4), answer = normal_values(random, kWidth);
  const DeviceInput lk(last, Element::f32), lv(answer, Element::f32);
  cache.append(0, 0, lk.vectors(), lv.vectors(), 1);
  const DeviceInput q(last, Element::f32);
  const Guarded<float> out(kWidth);
  cache.attend_batch(0, q.vectors(), 2, 0.1f, out.data(), Element::f32);
  const std::vector<float> is = out.read();
  for (std::size_t h = 0; h < 2; ++h) {
    CHECK(reference::cosine(reference::widen(std::span(is).subspan(h * 128, 128)),
                            reference::widen(std::span(answer).subspan(h * 128, 128))) > 0.99);
  }
  MESSAGE(cache.bytes_used().total(), " bytes stored");
}

TEST_CASE("out of memory says so, and the cache goes on") {
  Random random = test_random(56);
  const CacheLayer layer = codec_layer(128, 2, {}, ValueConfig{}, false, random);
  gpu::GpuKvCache cache(gpu(), {layer}, {128, 0, 1});
  const SampleTokens sample(layer, 300, random);
  const DeviceInput k(sample.k, Element::f32), v(sample.v, Element::f32);
  cache.prefill(0, 0, k.vectors(), v.vectors(), 300);
  CHECK_THROWS_AS(DeviceBuffer(gpu().device(), std::size_t{1} << 50), SystemError);
  const Agreement agreement = check_attend(cache, 0, 4, Element::f32, random);
  CHECK(agreement.worst_error < 2e-3);
}

}  // namespace tq::test
