#include <doctest/doctest.h>

#include <vector>

#include "calibration/artefact/cache_layers.h"
#include "core/error.h"
#include "core/kv_cache.h"
#include "tests/calibration/artefact/artefact_samples.h"
#include "tests/support/cache_reference.h"
#include "tests/support/cache_samples.h"
#include "tests/support/test_seed.h"

namespace ref = tq::reference;
using tq::CacheLayer;
using tq::LayerArtefact;

TEST_CASE("an artefact's layers become a cache's") {
  tq::Random random = tq::test::test_random(130);
  for (int round = 0; round < 20; ++round) {
    const tq::Artefact artefact = tq::test::random_artefact(random.bits64());
    const std::vector<CacheLayer> layers = tq::cache_layers(artefact);
    REQUIRE(layers.size() == artefact.layers.size());
    for (std::size_t i = 0; i < layers.size(); ++i) {
      const LayerArtefact& from = artefact.layers[i];
      CHECK(layers[i].head_dim == from.head_dim);
      CHECK(layers[i].num_kv_heads == from.num_kv_heads);
      for (int head = 0; head < from.num_kv_heads; ++head) {
        const auto h = static_cast<std::size_t>(head);
        const tq::KeyCodec& key = layers[i].key_codec(head);
        CHECK(key.config() == from.key);
        CHECK(key.tables() == from.key_tables[from.key_tables.size() == 1 ? 0 : h]);
        CHECK(key.rotation().seed() == artefact.rotations.at(from.head_dim).seed());
        CHECK((key.sketch() != nullptr) == (from.key.mode == tq::KeyMode::prod));
        const tq::ValueCodec& value = layers[i].value_codec(head);
        CHECK(value.config() == from.value);
        CHECK((value.rotated() == nullptr) == from.value_tables.empty());
        if (value.rotated() == nullptr) continue;
        CHECK(value.rotated()->tables().codebook == from.value_tables[from.value_tables.size() == 1 ? 0 : h]);
      }
    }
  }
}

TEST_CASE("a cache of an artefact attends as its tables say") {
  tq::Random random = tq::test::test_random(131);
  const tq::Artefact artefact = tq::test::random_artefact(random.bits64());
  const std::vector<CacheLayer> layers = tq::cache_layers(artefact);
  const tq::CachePolicy policy{10, 2, 4};
  tq::KvCache cache(layers, policy);
  for (int i = 0; i < cache.layers(); ++i) {
    CAPTURE(i);
    const CacheLayer& layer = layers[static_cast<std::size_t>(i)];
    const auto d = static_cast<std::size_t>(layer.head_dim);
    const tq::test::SampleTokens tokens(layer, 90, random);
    tokens.append_to(cache, i, 0, 0, 90);
    ref::SlowCache slow(layer, policy);
    for (std::size_t t = 0; t < 90; ++t) slow.append(tokens.key(t), tokens.value(t));
    const int heads = artefact.num_q_heads, group = heads / layer.num_kv_heads;
    const std::vector<float> q = tq::test::normal_values(random, static_cast<std::size_t>(heads) * d);
    std::vector<float> out(q.size());
    cache.attend(i, 0, q.data(), heads, 0.1f, out.data());
    for (int h = 0; h < heads; ++h) {
      const std::size_t at = static_cast<std::size_t>(h) * d;
      const ref::Vector expected = slow.attend(h / group, {&q[at], d}, static_cast<double>(0.1f)).out;
      // Random tables make scores of hundreds, whose rounding the exponential magnifies.
      CHECK(ref::relative_error(ref::widen({&out[at], d}), expected) < 2e-4);
    }
  }
}

TEST_CASE("an artefact whose parts do not fit is refused") {
  tq::Artefact artefact = tq::test::plain_artefact();
  CHECK(tq::cache_layers(artefact).size() == 2);
  artefact.sketches.clear();
  CHECK_THROWS_AS(tq::cache_layers(artefact), tq::InputError);
}
