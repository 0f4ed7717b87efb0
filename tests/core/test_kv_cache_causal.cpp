#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "core/error.h"
#include "core/kv_cache.h"
#include "tests/support/cache_samples.h"
#include "tests/support/simd_targets.h"
#include "tests/support/test_seed.h"

using tq::CacheLayer;
using tq::CachePolicy;
using tq::KvCache;
using tq::test::normal_values;
using tq::test::sample_layers;
using tq::test::SampleTokens;
using tq::test::saved;
using tq::test::test_random;

namespace {

constexpr float kScale = 0.09f;
constexpr int kGroup = 3;

int q_heads(const CacheLayer& layer) { return layer.num_kv_heads * kGroup; }
std::size_t query_width(const CacheLayer& layer) {
  return static_cast<std::size_t>(q_heads(layer) * layer.head_dim);
}

// append() and attend() by turns.
std::vector<float> one_by_one(KvCache& cache, const SampleTokens& tokens, const std::vector<float>& q) {
  const CacheLayer& layer = cache.layer(0);
  std::vector<float> out(q.size());
  for (std::size_t t = 0; t < tokens.count(); ++t) {
    tokens.append_to(cache, 0, 0, t, t + 1);
    cache.attend(0, 0, &q[t * query_width(layer)], q_heads(layer), kScale, &out[t * query_width(layer)]);
  }
  return out;
}

// append_and_attend() in pieces that end at `ends`.
std::vector<float> in_pieces(KvCache& cache, const SampleTokens& tokens, const std::vector<float>& q,
                             std::vector<std::size_t> ends) {
  const CacheLayer& layer = cache.layer(0);
  std::vector<float> out(q.size());
  ends.push_back(tokens.count());
  std::size_t begin = 0;
  for (const std::size_t end : ends) {
    cache.append_and_attend(0, 0, tokens.key(begin), tokens.value(begin), end - begin,
                            &q[begin * query_width(layer)], q_heads(layer), kScale,
                            &out[begin * query_width(layer)]);
    begin = end;
  }
  return out;
}

float largest_difference(const std::vector<float>& a, const std::vector<float>& b) {
  float largest = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    const float difference = std::fabs(a[i] - b[i]);
    if (std::isnan(difference)) return std::numeric_limits<float>::infinity();
    largest = std::max(largest, difference);
  }
  return largest;
}

}  // namespace

TEST_CASE("append_and_attend is append and attend by turns, for every codec and policy") {
  tq::Random random = test_random(9001);
  constexpr std::size_t kTokens = 203;
  for (const CacheLayer& layer : sample_layers(48, 2, random)) {
    const SampleTokens tokens(layer, kTokens, random);
    const std::vector<float> q = normal_values(random, kTokens * query_width(layer));
    for (const CachePolicy& policy : {CachePolicy{0, 0, 1}, CachePolicy{40, 0, 1}, CachePolicy{40, 70, 1},
                                      CachePolicy{1, 3, 1}, CachePolicy{10, 5, 25}, CachePolicy{128, 0, 64},
                                      CachePolicy{1000, 0, 1}, CachePolicy{0, 1000, 1}}) {
      CAPTURE(tq::test::describe(layer));
      CAPTURE(policy.recent);
      CAPTURE(policy.sinks);
      CAPTURE(policy.flush_block);
      KvCache slow({layer}, policy);
      const std::vector<float> wanted = one_by_one(slow, tokens, q);
      for (const std::vector<std::size_t>& ends :
           {std::vector<std::size_t>{}, {1, 2, 66}, {32, 64, 64}, {70, 140}, {199}}) {
        KvCache cache({layer}, policy);
        CHECK(largest_difference(in_pieces(cache, tokens, q, ends), wanted) < 2e-5f);
        CHECK(saved(cache) == saved(slow));
      }
    }
  }
}

TEST_CASE("append_and_attend does not depend on threads and SIMD target") {
  tq::Random random = test_random(9002);
  const CacheLayer layer = sample_layers(64, 2, random).front();
  const SampleTokens tokens(layer, 150, random);
  const std::vector<float> q = normal_values(random, 150 * query_width(layer));
  std::vector<float> first;
  tq::test::on_every_target([&] {
    KvCache cache({layer}, {.recent = 20, .sinks = 4, .flush_block = 1});
    const std::vector<float> out = in_pieces(cache, tokens, q, {});
    if (first.empty()) first = out;
    CHECK(out == first);
  });
}

TEST_CASE("append_and_attend: a NaN key or a huge score breaks the queries that see it, and no earlier one") {
  tq::Random random = test_random(9003);
  for (const CacheLayer& layer : {sample_layers(64, 1, random).front(), tq::test::exact_layer(64, 1)}) {
    for (const float bad : {std::numeric_limits<float>::quiet_NaN(), 60000.0f}) {
      CAPTURE(tq::test::describe(layer));
      SampleTokens tokens(layer, 100, random);
      std::vector<float> q = normal_values(random, 100 * query_width(layer));
      std::fill_n(&tokens.k[50 * tokens.width], tokens.width, bad);
      if (!std::isnan(bad)) std::fill(q.begin(), q.end(), 1e30f);
      if (!std::isnan(bad)) std::fill_n(q.begin(), 50 * query_width(layer), 0.1f);
      KvCache cache({layer}, {.recent = 16, .sinks = 0, .flush_block = 1});
      const std::vector<float> out = in_pieces(cache, tokens, q, {});
      const auto is_nan = [](float x) { return std::isnan(x); };
      const auto middle = out.begin() + static_cast<std::ptrdiff_t>(50 * query_width(layer));
      CHECK(std::none_of(out.begin(), middle, is_nan));
      CHECK(std::all_of(middle, middle + 16 * static_cast<std::ptrdiff_t>(query_width(layer)), is_nan));
    }
  }
}

TEST_CASE("append_and_attend refuses what append and attend refuse") {
  KvCache cache({tq::test::exact_layer(64, 2)}, {});
  std::vector<float> x(3 * 64);
  CHECK_THROWS_AS(cache.append_and_attend(0, 0, x.data(), x.data(), 1, x.data(), 3, 1, x.data()),
                  tq::UsageError);
  CHECK_THROWS_AS(cache.append_and_attend(1, 0, x.data(), x.data(), 1, x.data(), 2, 1, x.data()),
                  std::out_of_range);
  CHECK(cache.tokens(0, 0) == 0);
  cache.append_and_attend(0, 0, nullptr, nullptr, 0, nullptr, 2, 1, nullptr);
  CHECK(cache.tokens(0, 0) == 0);
}
