#include <doctest/doctest.h>

#include <cstring>
#include <sstream>
#include <string>
#include <vector>

#include "core/error.h"
#include "core/kv_cache.h"
#include "core/sha256.h"
#include "tests/support/cache_samples.h"
#include "tests/support/test_seed.h"

using tq::CacheLayer;
using tq::CachePolicy;
using tq::InputError;
using tq::KeyMode;
using tq::KvCache;
using tq::ScaleRule;
using tq::ValueMode;
using tq::test::sample_layers;
using tq::test::SampleTokens;
using tq::test::saved;
using tq::test::test_random;

namespace {

void restore(KvCache& cache, const std::string& bytes) {
  std::istringstream stream(bytes);
  cache.restore(stream);
}

bool refuses(KvCache& cache, const std::string& bytes) {
  try {
    restore(cache, bytes);
  } catch (const InputError&) {
    return true;
  }
  return false;
}

// The bits of out and lse of every layer and sequence.
std::string attention_bits(const KvCache& cache, const std::vector<float>& q) {
  std::string bits;
  for (int layer = 0; layer < cache.layers(); ++layer) {
    const auto batch = static_cast<std::size_t>(cache.batch());
    const int heads = 4 * cache.layer(layer).num_kv_heads;
    const std::size_t count = static_cast<std::size_t>(heads) * batch;
    std::vector<float> out(count * static_cast<std::size_t>(cache.layer(layer).head_dim)), lse(count);
    REQUIRE(q.size() >= out.size());
    cache.attend_batch(layer, q.data(), heads, 0.1f, out.data(), lse.data());
    bits.append(reinterpret_cast<const char*>(out.data()), 4 * out.size());
    bits.append(reinterpret_cast<const char*>(lse.data()), 4 * lse.size());
  }
  return bits;
}

CacheLayer tiny_layer(tq::Random& random) {
  return tq::test::codec_layer(16, 1, {KeyMode::prod, 2, ScaleRule::nc, {}}, {ValueMode::group, 2, 16, {}},
                               false, random);
}

// The digest put right, so that what is refused is the content.
std::string with_digest(std::string bytes) {
  tq::Sha256 hash;
  hash.update(bytes.data(), bytes.size() - 32);
  const tq::Sha256::Digest digest = hash.finish();
  std::memcpy(bytes.data() + bytes.size() - 32, digest.data(), 32);
  return bytes;
}

}  // namespace

TEST_CASE("a restored cache attends to the same bits and goes on alike") {
  tq::Random random = test_random(110);
  const std::vector<CacheLayer> layers = sample_layers(64, 2, random);
  const std::vector<float> q = tq::test::normal_values(random, 3 * 8 * 64);
  for (const CachePolicy policy : {CachePolicy{128, 0, 1}, CachePolicy{20, 3, 16}, CachePolicy{0, 0, 1}}) {
    CAPTURE(policy.recent);
    KvCache cache(layers, policy, 3);
    for (int layer = 0; layer < cache.layers(); ++layer) {
      const SampleTokens tokens(layers[static_cast<std::size_t>(layer)], 300, random);
      tokens.append_to(cache, layer, 1, 0, random.below(200));
      // One token at a time, so that the window's ring begins somewhere in its middle.
      for (std::size_t t = 0; t < 210; ++t) tokens.append_to(cache, layer, 2, t, t + 1);
    }
    const std::string bytes = saved(cache);
    KvCache restored(layers, policy, 3);
    const SampleTokens other(layers[0], 30, random);
    other.append_to(restored, 0, 0, 0, 30);  // is replaced
    restore(restored, bytes);
    CHECK(saved(restored) == bytes);
    CHECK(restored.bytes_used() == cache.bytes_used());
    CHECK(attention_bits(restored, q) == attention_bits(cache, q));
    for (int layer = 0; layer < cache.layers(); ++layer) {
      const SampleTokens more(layers[static_cast<std::size_t>(layer)], 100, random);
      more.append_to(cache, layer, 2, 0, 100);
      for (std::size_t t = 0; t < 100; ++t) more.append_to(restored, layer, 2, t, t + 1);
    }
    CHECK(saved(restored) == saved(cache));
    CHECK(attention_bits(restored, q) == attention_bits(cache, q));
    // A stream that goes on: what follows is not read.
    std::istringstream stream(bytes + "tail");
    restored.restore(stream);
    std::string tail;
    stream >> tail;
    CHECK(tail == "tail");
    CHECK(saved(restored) == bytes);
  }
}

TEST_CASE("the stream is what its description says") {
  tq::Random random = test_random(111);
  const CacheLayer layer = tiny_layer(random);
  KvCache cache({layer}, {3, 1, 1}, 2);
  const SampleTokens tokens(layer, 70, random);
  tokens.append_to(cache, 0, 1, 0, 70);
  const std::string bytes = saved(cache);
  // 1 sink, 66 quantised and 3 in the window, 16 coordinates.
  const std::size_t header = 8 + 6 * 4 + 32 + 2 * 8;
  const std::size_t key = 2 + 2 + 2 + 2, value = 4 + 4;
  CHECK(bytes.size() == header + 4 * 64 + 66 * (key + value) + 32);
  CHECK(bytes.size() == header + cache.bytes_used().total() + 32);
  CHECK(bytes.substr(0, 8) == "TQKVCACH");
  CHECK(bytes.substr(8, 24) == std::string("\1\0\0\0\1\0\0\0\2\0\0\0\3\0\0\0\1\0\0\0\1\0\0\0", 24));
  CHECK(bytes.substr(64, 16) == std::string("\0\0\0\0\0\0\0\0\106\0\0\0\0\0\0\0", 16));
  // The first page's key codes follow the sink; its scales follow 64 rows of codes.
  const tq::ConstKeyBlock block = cache.store(0, 1).keys(0, 0);
  const std::size_t page = header + 2 * 2 * 16;
  CHECK(std::memcmp(&bytes[page], block.codes, 64 * 2) == 0);
  CHECK(std::memcmp(&bytes[page + 128], block.scales, 64 * 2) == 0);
  CHECK(bytes == with_digest(bytes));
}

TEST_CASE("every truncation and every damaged byte is refused, and the cache is as it was") {
  tq::Random random = test_random(112);
  const CacheLayer layer = tiny_layer(random);
  const CachePolicy policy{2, 1, 1};
  KvCache cache({layer}, policy, 2);
  const SampleTokens tokens(layer, 70, random);
  tokens.append_to(cache, 0, 0, 0, 70);
  tokens.append_to(cache, 0, 1, 0, 5);
  const std::string bytes = saved(cache);
  KvCache target({layer}, policy, 2);
  tokens.append_to(target, 0, 1, 10, 40);
  const std::string before = saved(target);
  std::size_t accepted = 0;
  for (std::size_t length = 0; length < bytes.size(); ++length)
    accepted += !refuses(target, bytes.substr(0, length));
  CHECK(accepted == 0);
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    for (int bit = 0; bit < 8; ++bit) {
      std::string damaged = bytes;
      damaged[i] = static_cast<char>(damaged[i] ^ (1 << bit));
      accepted += !refuses(target, damaged);
    }
  }
  CHECK(accepted == 0);
  CHECK(saved(target) == before);
  CHECK_NOTHROW(restore(target, bytes));
  CHECK(saved(target) == bytes);
}

TEST_CASE("a stream that promises more than it holds costs no memory") {
  tq::Random random = test_random(113);
  const CacheLayer layer = tiny_layer(random);
  KvCache cache({layer}, {2, 1, 1});
  std::string bytes = saved(cache);
  const std::size_t tokens_at = 8 + 6 * 4 + 32;
  for (const int byte : {3, 4, 5, 7}) {  // from 2^24 tokens on
    CAPTURE(byte);
    std::string promise = bytes;
    promise[tokens_at + static_cast<std::size_t>(byte)] = 1;
    CHECK(refuses(cache, with_digest(promise)));
  }
}

TEST_CASE("a cache made otherwise is refused") {
  tq::Random random = test_random(114);
  const tq::KeyConfig key{KeyMode::prod, 3, ScaleRule::nc, {}};
  const tq::ValueConfig value{ValueMode::rotated, 3, 32, ScaleRule::nc};
  const CacheLayer layer = tq::test::codec_layer(64, 2, key, value, true, random);
  const CachePolicy policy{10, 2, 1};
  KvCache cache({layer}, policy, 2);
  const SampleTokens tokens(layer, 40, random);
  tokens.append_to(cache, 0, 0, 0, 40);
  const std::string bytes = saved(cache);
  const auto refused = [&](std::vector<CacheLayer> layers, CachePolicy other = {10, 2, 1}, int batch = 2) {
    KvCache target(std::move(layers), other, batch);
    return refuses(target, bytes);
  };
  CHECK(!refused({layer}));
  CHECK(refused({layer, layer}));
  CHECK(refused({layer}, policy, 1));
  CHECK(refused({layer}, {11, 2, 1}));
  CHECK(refused({layer}, {10, 3, 1}));
  CHECK(refused({layer}, {10, 2, 2}));
  CHECK(refused({tq::test::exact_layer(64, 2)}));
  CHECK(refused({tq::test::codec_layer(64, 2, key, value, true, random)}));  // another rotation
  // One thing of one codec.
  const auto rebuilt = [&](auto change) {
    CacheLayer other = layer;
    const tq::KeyCodec& old = *layer.keys[1];
    tq::KeyTables tables = old.tables();
    auto rotation = std::make_shared<const tq::Rotation>(old.rotation());
    auto sketch = std::make_shared<const tq::Sketch>(*old.sketch());
    tq::Codebook codebook = layer.values[1]->rotated()->tables().codebook;
    change(tables, rotation, sketch, codebook);
    other.keys[1] = std::make_shared<const tq::KeyCodec>(old.config(), rotation, sketch, tables);
    other.values[1] =
        std::make_shared<const tq::ValueCodec>(layer.values[1]->config(), 64, rotation, codebook);
    return other;
  };
  CHECK(!refused({rebuilt([](auto&, auto&, auto&, auto&) {})}));
  CHECK(refused({rebuilt([](auto& t, auto&, auto&, auto&) { t.qjl_scale *= 1.0001; })}));
  CHECK(refused({rebuilt([](auto& t, auto&, auto&, auto&) { t.codebook.centroids[0] *= 1.0001; })}));
  CHECK(refused({rebuilt([](auto& t, auto&, auto&, auto&) { t.codebook.boundaries[1] += 1e-5; })}));
  CHECK(refused({rebuilt([](auto&, auto&, auto&, auto& c) { c.centroids[2] *= 1.0001; })}));
  CHECK(refused({rebuilt([](auto&, auto&, auto& s, auto&) {
    s = std::make_shared<const tq::Sketch>(tq::Sketch::make(tq::SketchKind::orthogonal, 64, 5));
  })}));
  // One codec for all heads, or the same one given once a head, is the same cache.
  CacheLayer shared = layer, repeated = layer;
  shared.keys.resize(1);
  shared.values.resize(1);
  repeated.keys[1] = layer.keys[0];
  repeated.values[1] = layer.values[0];
  CHECK(tq::fingerprint(shared) == tq::fingerprint(repeated));
  CHECK(tq::fingerprint(shared) != tq::fingerprint(layer));
}

TEST_CASE("a stream that fails while writing is an error") {
  tq::Random random = test_random(115);
  const KvCache cache({tiny_layer(random)}, {});
  std::ostringstream stream;
  stream.setstate(std::ios::badbit);
  CHECK_THROWS_AS(cache.save(stream), tq::SystemError);
}
