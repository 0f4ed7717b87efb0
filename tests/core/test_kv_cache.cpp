#include <doctest/doctest.h>
#include <omp.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <stdexcept>
#include <string>
#include <vector>

#include "core/error.h"
#include "core/kv_cache.h"
#include "core/packing.h"
#include "tests/support/cache_reference.h"
#include "tests/support/cache_samples.h"
#include "tests/support/simd_targets.h"
#include "tests/support/test_seed.h"

namespace ref = tq::reference;
using tq::CacheLayer;
using tq::CachePolicy;
using tq::KeyMode;
using tq::KvCache;
using tq::ScaleRule;
using tq::TokenCounts;
using tq::TokenStore;
using tq::UsageError;
using tq::ValueMode;
using tq::test::normal_values;
using tq::test::sample_layers;
using tq::test::SampleTokens;
using tq::test::saved;
using tq::test::test_random;

namespace {

constexpr float kScale = 0.09f;

struct Attention {
  std::vector<float> out, lse;
  // Bit for bit, NaN included.
  bool same_bits(const Attention& other) const {
    return out.size() == other.out.size() && std::memcmp(out.data(), other.out.data(), 4 * out.size()) == 0 &&
           std::memcmp(lse.data(), other.lse.data(), 4 * lse.size()) == 0;
  }
};

std::size_t q_heads(const CacheLayer& layer, int group) {
  return static_cast<std::size_t>(layer.num_kv_heads * group);
}

std::vector<float> sample_queries(const CacheLayer& layer, int group, tq::Random& random) {
  return normal_values(random, q_heads(layer, group) * static_cast<std::size_t>(layer.head_dim));
}

// A guard behind each array; poisoned before.
Attention attend(const KvCache& cache, int layer, int sequence, int group, const std::vector<float>& q) {
  const std::size_t heads = q_heads(cache.layer(layer), group);
  Attention result{std::vector<float>(q.size() + 1, -7), std::vector<float>(heads + 1, -7)};
  cache.attend(layer, sequence, q.data(), static_cast<int>(heads), kScale, result.out.data(),
               result.lse.data());
  CHECK(result.out.back() == -7);
  CHECK(result.lse.back() == -7);
  return result;
}

std::vector<float> scores(const KvCache& cache, int layer, int sequence, int group,
                          const std::vector<float>& q) {
  const std::size_t heads = q_heads(cache.layer(layer), group);
  std::vector<float> result(heads * cache.tokens(layer, sequence) + 1, -7);
  cache.scores(layer, sequence, q.data(), static_cast<int>(heads), result.data());
  CHECK(result.back() == -7);
  return result;
}

ref::SlowCache slow_cache(const CacheLayer& layer, const CachePolicy& policy, const SampleTokens& tokens) {
  ref::SlowCache slow(layer, policy);
  for (std::size_t t = 0; t < tokens.count(); ++t) slow.append(tokens.key(t), tokens.value(t));
  return slow;
}

// Relative error of attention (per query head, the worst) and of scores (against ||q|| ||k||), and error of
// lse.
struct Errors {
  double out = 0, scores = 0, lse = 0;
};

Errors errors(const KvCache& cache, int layer, int sequence, int group, const std::vector<float>& q,
              const ref::SlowCache& slow) {
  const auto d = static_cast<std::size_t>(cache.layer(layer).head_dim);
  const Attention got = attend(cache, layer, sequence, group, q);
  const std::vector<float> got_scores = scores(cache, layer, sequence, group, q);
  const std::size_t tokens = slow.tokens().size();
  Errors worst;
  for (std::size_t h = 0; h < q_heads(cache.layer(layer), group); ++h) {
    const int kv_head = static_cast<int>(h) / group;
    const ref::SlowCache::Attention expected = slow.attend(kv_head, {&q[h * d], d}, double{kScale});
    worst.out = std::max(worst.out, ref::relative_error(ref::widen({&got.out[h * d], d}), expected.out));
    worst.lse = std::max(worst.lse, std::fabs(static_cast<double>(got.lse[h]) - expected.lse));
    const double query = ref::norm(ref::widen({&q[h * d], d}));
    for (std::size_t t = 0; t < tokens; ++t) {
      const double size = query * ref::norm(slow.tokens()[t].heads[static_cast<std::size_t>(kv_head)].key);
      const double error = std::fabs(static_cast<double>(got_scores[h * tokens + t]) - expected.scores[t]);
      worst.scores = std::max(worst.scores, size > 0 ? error / size : error);
    }
  }
  return worst;
}

void check_against(const KvCache& cache, int layer, int sequence, int group, const std::vector<float>& q,
                   const ref::SlowCache& slow) {
  const Errors worst = errors(cache, layer, sequence, group, q, slow);
  CHECK(worst.out < 1e-5);
  CHECK(worst.scores < 2e-6);
  CHECK(worst.lse < 1e-5);
}

// The bytes of quantised token `row` and one KV head, wherever they lie.
std::string stored_row(const KvCache& cache, int layer, int sequence, int head, std::size_t row) {
  const CacheLayer& config = cache.layer(layer);
  const TokenStore& store = cache.store(layer, sequence);
  const std::size_t page = row / tq::kPageTokens, r = row % tq::kPageTokens;
  const auto d = static_cast<std::size_t>(config.head_dim);
  std::string bytes;
  const auto add = [&](const auto* rows, std::size_t count) {
    bytes.append(reinterpret_cast<const char*>(rows + r * count), count * sizeof(*rows));
  };
  const auto add_keys = [&](const tq::ConstKeyBlock& block, int bits, bool prod) {
    add(block.codes, tq::packed_bytes(d, bits));
    add(block.scales, 1);
    if (prod) add(block.signs, d / 8);
    if (prod) add(block.residual_norms, 1);
  };
  const tq::KeyConfig& key = config.key_codec(head).config();
  add_keys(store.keys(page, head), key.table_bits(), key.mode == KeyMode::prod);
  const tq::ValueConfig& value = config.value_codec(head).config();
  const tq::ConstValueBlock values = store.values(page, head);
  if (const auto* rotated = std::get_if<tq::ConstKeyBlock>(&values)) {
    add_keys(*rotated, value.bits, false);
  } else {
    const auto& block = std::get<tq::ConstGroupBlock>(values);
    add(block.codes, tq::packed_bytes(d, value.bits));
    add(block.scales, d / static_cast<std::size_t>(value.group_size));
    add(block.zeros, d / static_cast<std::size_t>(value.group_size));
  }
  return bytes;
}

std::string expected_row(const ref::SlowCache::Row& row) {
  std::string bytes;
  const auto add = [&](const auto& values) {
    bytes.append(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(values[0]));
  };
  const auto add_keys = [&](const tq::EncodedKeys& keys) {
    add(keys.codes);
    add(keys.scales);
    add(keys.signs);
    add(keys.residual_norms);
  };
  add_keys(row.key_codes);
  if (const auto* rotated = std::get_if<tq::EncodedKeys>(&row.value_codes)) {
    add_keys(*rotated);
  } else {
    const auto& groups = std::get<tq::EncodedGroups>(row.value_codes);
    add(groups.codes);
    add(groups.scales);
    add(groups.zeros);
  }
  return bytes;
}

// Every byte that the cache holds of the sequence is what the slow cache says.
void check_content(const KvCache& cache, int layer, int sequence, const ref::SlowCache& slow) {
  const TokenStore& store = cache.store(layer, sequence);
  const TokenCounts counts = slow.counts();
  REQUIRE(store.counts() == counts);
  const auto d = static_cast<std::size_t>(cache.layer(layer).head_dim);
  std::size_t different = 0;
  for (int head = 0; head < cache.layer(layer).num_kv_heads; ++head) {
    const auto row_of = [&](std::size_t t) -> const ref::SlowCache::Row& {
      return slow.tokens()[t].heads[static_cast<std::size_t>(head)];
    };
    const std::vector<std::size_t> quantised = slow.quantised();
    for (std::size_t i = 0; i < quantised.size(); ++i)
      different += stored_row(cache, layer, sequence, head, i) != expected_row(row_of(quantised[i]));
    const auto check_exact = [&](TokenStore::Part part, std::size_t first, std::size_t count) {
      for (std::size_t t = 0; t < count; ++t) {
        std::vector<float> key(d), value(d);
        store.read_exact(part, TokenStore::Side::keys, head, t, 1, key.data());
        store.read_exact(part, TokenStore::Side::values, head, t, 1, value.data());
        different += ref::widen(key) != row_of(first + t).key;
        different += ref::widen(value) != row_of(first + t).value;
      }
    };
    check_exact(TokenStore::Part::sinks, 0, counts.sinks);
    check_exact(TokenStore::Part::window, counts.sinks + counts.quantised, counts.window);
  }
  CHECK(different == 0);
}

KvCache cache_of(const CacheLayer& layer, const CachePolicy& policy, const SampleTokens& tokens) {
  KvCache cache({layer}, policy);
  cache.prefill(0, 0, tokens.k.data(), tokens.v.data(), tokens.count());
  return cache;
}

CacheLayer small_layer(tq::Random& random) {
  return tq::test::codec_layer(64, 2, {KeyMode::prod, 3, ScaleRule::nc, {}}, {ValueMode::group, 2, 32, {}},
                               true, random);
}

}  // namespace

TEST_CASE("token counts follow from the policy's text") {
  for (const int recent : {0, 1, 5, 128}) {
    for (const int sinks : {0, 1, 4}) {
      for (const int block : {1, 3, 16}) {
        const CachePolicy policy{recent, sinks, block};
        TokenCounts expected;
        std::size_t largest = 0;
        bool same = true;
        for (std::size_t n = 0; n < 300; ++n) {
          same &= tq::token_counts(policy, n) == expected;
          largest = std::max(largest, expected.window);
          if (expected.sinks < static_cast<std::size_t>(sinks)) {
            ++expected.sinks;
          } else if (++expected.window == static_cast<std::size_t>(recent + block)) {
            expected.window -= static_cast<std::size_t>(block);
            expected.quantised += static_cast<std::size_t>(block);
          }
        }
        CAPTURE(recent);
        CAPTURE(sinks);
        CAPTURE(block);
        CHECK(same);
        CHECK(largest == tq::window_capacity(policy));
      }
    }
  }
  // The seed's: 128 recent tokens, one quantised for each that comes.
  CHECK(tq::token_counts({}, 128) == TokenCounts{0, 0, 128});
  CHECK(tq::token_counts({}, 129) == TokenCounts{0, 1, 128});
  CHECK(tq::token_counts({128, 4, 16}, 147) == TokenCounts{4, 0, 143});
  CHECK(tq::token_counts({128, 4, 16}, 148) == TokenCounts{4, 16, 128});
}

TEST_CASE("attention over the cache agrees with float64") {
  tq::Random random = test_random(90);
  const std::vector<CachePolicy> policies{{20, 0, 1}, {20, 3, 16}, {0, 1, 1}, {70, 66, 5}};
  std::size_t turn = 0;
  for (const int d : {64, 80, 128}) {
    for (const CacheLayer& layer : sample_layers(d, 2, random)) {
      for (const int group : {1, 4, 8}) {
        const CachePolicy policy = policies[turn++ % policies.size()];
        const SampleTokens tokens(layer, 1 + random.below(200), random);
        CAPTURE(d);
        CAPTURE(tq::test::describe(layer));
        CAPTURE(group);
        CAPTURE(tokens.count());
        CAPTURE(policy.recent);
        const KvCache cache = cache_of(layer, policy, tokens);
        const ref::SlowCache slow = slow_cache(layer, policy, tokens);
        check_content(cache, 0, 0, slow);
        check_against(cache, 0, 0, group, sample_queries(layer, group, random), slow);
      }
    }
  }
}

TEST_CASE("many query heads a KV head, one KV head") {
  tq::Random random = test_random(91);
  const CacheLayer layer = tq::test::codec_layer(96, 1, {KeyMode::prod, 4, ScaleRule::nc, {}},
                                                 {ValueMode::rotated, 4, 32, ScaleRule::nc}, false, random);
  const SampleTokens tokens(layer, 150, random);
  const CachePolicy policy{40, 2, 1};
  const KvCache cache = cache_of(layer, policy, tokens);
  const ref::SlowCache slow = slow_cache(layer, policy, tokens);
  for (const int group : {3, 16, 37}) {
    CAPTURE(group);
    check_against(cache, 0, 0, group, sample_queries(layer, group, random), slow);
  }
}

TEST_CASE("attention does not depend on how the tokens came") {
  tq::Random random = test_random(92);
  constexpr int kRecent = 20, kGroup = 2;
  for (const int sinks : {0, 5}) {
    for (const int block : {1, 16}) {
      for (const CacheLayer& layer : sample_layers(64, 2, random)) {
        CAPTURE(sinks);
        CAPTURE(block);
        CAPTURE(tq::test::describe(layer));
        const CachePolicy policy{kRecent, sinks, block};
        // Around where the window fills, where the first flush comes and where pages of 64 end.
        std::vector<int> lengths{0, 1, 2, sinks, sinks + 1, sinks + kRecent - 1, sinks + kRecent};
        for (const int page : {0, 63, 64, 65, 127, 128, 129}) {
          lengths.push_back(page);
          for (int extra = 0; extra < 2; ++extra) {
            lengths.push_back(sinks + kRecent + page + extra);
            lengths.push_back(sinks + kRecent + page / block * block + block - 1 + extra);
          }
        }
        const auto longest = static_cast<std::size_t>(*std::max_element(lengths.begin(), lengths.end()));
        const SampleTokens tokens(layer, longest, random);
        const std::vector<float> q = sample_queries(layer, kGroup, random);
        KvCache one_by_one({layer}, policy);
        ref::SlowCache slow(layer, policy);
        std::size_t differences = 0;
        for (std::size_t n = 0; n <= longest; ++n) {
          if (std::count(lengths.begin(), lengths.end(), static_cast<int>(n)) > 0) {
            KvCache at_once({layer}, policy), in_pieces({layer}, policy);
            at_once.prefill(0, 0, tokens.k.data(), tokens.v.data(), n);
            for (std::size_t begin = 0; begin < n;) {
              const std::size_t end = std::min(n, begin + random.below(70));
              tokens.append_to(in_pieces, 0, 0, begin, end);
              begin = end;
            }
            const std::string content = saved(one_by_one);
            differences += saved(at_once) != content;
            differences += saved(in_pieces) != content;
            const Attention expected = attend(one_by_one, 0, 0, kGroup, q);
            differences += !attend(at_once, 0, 0, kGroup, q).same_bits(expected);
            differences += !attend(in_pieces, 0, 0, kGroup, q).same_bits(expected);
            differences += scores(at_once, 0, 0, kGroup, q) != scores(one_by_one, 0, 0, kGroup, q);
            differences += at_once.bytes_used() != one_by_one.bytes_used();
          }
          if (n == longest) break;
          tokens.append_to(one_by_one, 0, 0, n, n + 1);
          slow.append(tokens.key(n), tokens.value(n));
        }
        CHECK(differences == 0);
        check_content(one_by_one, 0, 0, slow);
      }
    }
  }
}

TEST_CASE("what was quantised never changes and never moves") {
  tq::Random random = test_random(93);
  for (const int block : {1, 16}) {
    for (const CacheLayer& layer : sample_layers(64, 2, random)) {
      if (layer.exact()) continue;
      CAPTURE(block);
      CAPTURE(tq::test::describe(layer));
      const CachePolicy policy{16, 2, block};
      const SampleTokens tokens(layer, 230, random);
      KvCache cache({layer}, policy);
      std::vector<std::string> rows;           // as they were when they first appeared
      std::vector<const std::uint8_t*> pages;  // where pages were when they first appeared
      std::size_t changed = 0, moved = 0;
      for (std::size_t t = 0; t < tokens.count(); ++t) {
        tokens.append_to(cache, 0, 0, t, t + 1);
        const TokenStore& store = cache.store(0, 0);
        for (std::size_t page = pages.size(); page < store.pages(); ++page)
          pages.push_back(store.keys(page, 0).codes);
        for (std::size_t i = 0; i < store.counts().quantised; ++i) {
          for (int head = 0; head < 2; ++head) {
            const std::string row = stored_row(cache, 0, 0, head, i);
            const std::size_t index = 2 * i + static_cast<std::size_t>(head);
            if (index == rows.size()) rows.push_back(row);
            changed += rows[index] != row;
          }
        }
        for (std::size_t page = 0; page < pages.size(); ++page)
          moved += store.keys(page, 0).codes != pages[page];
      }
      CHECK(changed == 0);
      CHECK(moved == 0);
      CHECK(pages.size() == 4);
      CHECK(rows.size() == 2 * tq::token_counts(policy, 230).quantised);
    }
  }
}

TEST_CASE("sequences of a batch have their own lengths") {
  tq::Random random = test_random(94);
  constexpr int kGroup = 4;
  const std::vector<std::size_t> lengths{0, 1, 37, 150, 64};
  const CachePolicy policy{30, 1, 4};
  for (const CacheLayer& layer : sample_layers(64, 2, random)) {
    CAPTURE(tq::test::describe(layer));
    KvCache cache({layer}, policy, static_cast<int>(lengths.size()));
    const std::size_t heads = q_heads(layer, kGroup), size = heads * 64;
    const std::vector<float> q = normal_values(random, lengths.size() * size);
    std::vector<ref::SlowCache> slow;
    for (std::size_t s = 0; s < lengths.size(); ++s) {
      const SampleTokens tokens(layer, lengths[s], random);
      cache.prefill(0, static_cast<int>(s), tokens.k.data(), tokens.v.data(), lengths[s]);
      slow.push_back(slow_cache(layer, policy, tokens));
    }
    std::vector<float> out(q.size(), -7), lse(lengths.size() * heads, -7);
    cache.attend_batch(0, q.data(), static_cast<int>(heads), kScale, out.data(), lse.data());
    for (std::size_t s = 0; s < lengths.size(); ++s) {
      CAPTURE(s);
      const auto at = [](const std::vector<float>& from, std::size_t begin, std::size_t count) {
        return std::vector<float>(from.begin() + static_cast<std::ptrdiff_t>(begin),
                                  from.begin() + static_cast<std::ptrdiff_t>(begin + count));
      };
      const std::vector<float> own_q = at(q, s * size, size);
      Attention own = attend(cache, 0, static_cast<int>(s), kGroup, own_q);
      own.out.pop_back();
      own.lse.pop_back();
      CHECK(own.same_bits({at(out, s * size, size), at(lse, s * heads, heads)}));
      CHECK(cache.tokens(0, static_cast<int>(s)) == lengths[s]);
      if (lengths[s] > 0) {
        check_against(cache, 0, static_cast<int>(s), kGroup, own_q, slow[s]);
      } else {
        CHECK(own.out == std::vector<float>(size, 0));
        CHECK(own.lse == std::vector<float>(heads, -std::numeric_limits<float>::infinity()));
      }
    }
    // lse is optional.
    std::vector<float> without(q.size(), -7);
    cache.attend_batch(0, q.data(), static_cast<int>(heads), kScale, without.data());
    CHECK(without == out);
  }
}

TEST_CASE("every layer has its own codec") {
  tq::Random random = test_random(95);
  std::vector<CacheLayer> layers = sample_layers(64, 2, random);
  layers.push_back(tq::test::codec_layer(128, 1, {KeyMode::mse, 3, ScaleRule::nc, {}},
                                         {ValueMode::rotated, 3, 32, ScaleRule::nc}, false, random));
  layers.push_back(tq::test::exact_layer(32, 4));
  const CachePolicy policy{10, 2, 3};
  KvCache cache(layers, policy, 2);
  // Layers filled in turn, as a model does: one does not disturb another.
  std::vector<SampleTokens> tokens;
  std::vector<ref::SlowCache> slow;
  for (const CacheLayer& layer : layers) {
    tokens.emplace_back(layer, 90, random);
    slow.push_back(slow_cache(layer, policy, tokens.back()));
  }
  for (std::size_t t = 0; t < 90; ++t) {
    for (std::size_t i = 0; i < layers.size(); ++i)
      tokens[i].append_to(cache, static_cast<int>(i), 1, t, t + 1);
  }
  const KvCache moved = std::move(cache);
  for (std::size_t i = 0; i < layers.size(); ++i) {
    CAPTURE(i);
    check_content(moved, static_cast<int>(i), 1, slow[i]);
    check_against(moved, static_cast<int>(i), 1, 2, sample_queries(layers[i], 2, random), slow[i]);
    CHECK(moved.tokens(static_cast<int>(i), 0) == 0);
  }
}

TEST_CASE("zero vectors, constants and huge coordinates") {
  tq::Random random = test_random(96);
  for (const CacheLayer& layer : sample_layers(64, 2, random)) {
    CAPTURE(tq::test::describe(layer));
    SampleTokens tokens(layer, 120, random);
    for (std::size_t t = 0; t < tokens.count(); ++t) {
      const auto begin = static_cast<std::ptrdiff_t>(t * tokens.width);
      const auto fill = [&](float key, float value) {
        std::fill_n(tokens.k.begin() + begin, tokens.width, key);
        std::fill_n(tokens.v.begin() + begin, tokens.width, value);
      };
      if (t % 9 == 0) fill(0, 0);
      if (t % 9 == 3) fill(0.25f, -1.5f);
      if (t % 9 == 5) fill(1e-6f, 1e-9f);  // binary16 denormals and zeros
    }
    const CachePolicy policy{33, 3, 1};
    const std::vector<float> q = sample_queries(layer, 4, random);
    {
      const KvCache cache = cache_of(layer, policy, tokens);
      check_against(cache, 0, 0, 4, q, slow_cache(layer, policy, tokens));
    }
    // Values and one key beyond binary16, in the sinks, among the codes and in the window. Their scores
    // decide the softmax: compared are scores and what is stored.
    for (const std::size_t t : {std::size_t{1}, std::size_t{50}, tokens.count() - 2}) {
      tokens.k[t * tokens.width + 7] = 1e30f;
      tokens.v[t * tokens.width + 9] = -70000.0f;
    }
    const KvCache cache = cache_of(layer, policy, tokens);
    const ref::SlowCache slow = slow_cache(layer, policy, tokens);
    check_content(cache, 0, 0, slow);
    const Errors worst = errors(cache, 0, 0, 4, q, slow);
    CHECK(worst.scores < 2e-6);
    for (const float value : attend(cache, 0, 0, 4, q).out) REQUIRE(std::isfinite(value));
  }
  // Nothing but zeros.
  const CacheLayer layer = small_layer(random);
  SampleTokens zeros(layer, 100, random);
  std::fill(zeros.k.begin(), zeros.k.end(), 0.0f);
  std::fill(zeros.v.begin(), zeros.v.end(), 0.0f);
  const KvCache cache = cache_of(layer, {10, 2, 1}, zeros);
  Attention got = attend(cache, 0, 0, 1, sample_queries(layer, 1, random));
  got.out.pop_back();
  got.lse.pop_back();
  CHECK(got.out == std::vector<float>(got.out.size(), 0.0f));
  for (const float lse : got.lse) CHECK(lse == doctest::Approx(std::log(100.0)));
}

TEST_CASE("a query that is not finite spoils its own head only") {
  tq::Random random = test_random(97);
  constexpr int kGroup = 4;
  for (const CacheLayer& layer : sample_layers(64, 2, random)) {
    for (const float poison :
         {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(), 3e38f}) {
      CAPTURE(tq::test::describe(layer));
      CAPTURE(poison);
      const SampleTokens tokens(layer, 120, random);
      const KvCache cache = cache_of(layer, {33, 3, 1}, tokens);
      std::vector<float> q = sample_queries(layer, kGroup, random);
      const Attention clean = attend(cache, 0, 0, kGroup, q);
      const std::size_t spoiled = random.below(8);
      q[spoiled * 64 + random.below(64)] = poison;
      const Attention got = attend(cache, 0, 0, kGroup, q);
      std::size_t wrong = 0;
      for (std::size_t h = 0; h < 8; ++h) {
        for (std::size_t j = h * 64; j < (h + 1) * 64; ++j)
          wrong += h == spoiled ? !std::isnan(got.out[j]) : got.out[j] != clean.out[j];
        wrong += h == spoiled ? !std::isnan(got.lse[h]) : got.lse[h] != clean.lse[h];
      }
      CHECK(wrong == 0);
    }
  }
}

TEST_CASE("a NaN in a key or value spoils its own KV head only") {
  tq::Random random = test_random(98);
  constexpr int kGroup = 2;
  const float nan = std::numeric_limits<float>::quiet_NaN();
  for (const CacheLayer& layer : sample_layers(64, 2, random)) {
    for (const std::size_t token : {0u, 40u, 119u}) {  // a sink, a quantised token, the newest
      for (const bool in_key : {true, false}) {
        CAPTURE(tq::test::describe(layer));
        CAPTURE(token);
        CAPTURE(in_key);
        SampleTokens tokens(layer, 120, random);
        const CachePolicy policy{33, 3, 1};
        const std::vector<float> q = sample_queries(layer, kGroup, random);
        const Attention clean = attend(cache_of(layer, policy, tokens), 0, 0, kGroup, q);
        (in_key ? tokens.k : tokens.v)[token * tokens.width + 64 + 5] = nan;  // KV head 1
        const Attention got = attend(cache_of(layer, policy, tokens), 0, 0, kGroup, q);
        std::size_t changed = 0, spoiled = 0;
        for (std::size_t j = 0; j < 2 * 64; ++j) changed += got.out[j] != clean.out[j];
        for (std::size_t h = 2; h < 4; ++h) {
          spoiled += std::isnan(got.out[h * 64 + 5]);
          if (in_key) spoiled += std::isnan(got.lse[h]);
          changed += got.lse[h - 2] != clean.lse[h - 2];
          if (!in_key) changed += got.lse[h] != clean.lse[h];
        }
        CHECK(changed == 0);
        // A group code cannot say NaN (core/value_codec.h): there it changes its group and no more.
        const bool group_code = !in_key && token == 40 && !layer.exact() &&
                                layer.value_codec(0).config().mode == ValueMode::group;
        if (group_code) {
          for (std::size_t j = 2 * 64; j < 4 * 64; ++j) changed += j % 64 >= 32 && got.out[j] != clean.out[j];
          CHECK(changed == 0);
        }
        CHECK(spoiled == (group_code ? 0 : in_key ? 4 : 2));
      }
    }
  }
}

TEST_CASE("results depend on neither the thread count nor the SIMD target") {
  tq::Random random = test_random(99);
  const int before = omp_get_max_threads();
  const auto targets = hwy::SupportedAndGeneratedTargets();
  for (const CacheLayer& layer : sample_layers(80, 3, random)) {
    CAPTURE(tq::test::describe(layer));
    const SampleTokens tokens(layer, 700, random);
    const std::vector<float> q = sample_queries(layer, 5, random);
    const auto run = [&](std::string& content) {
      const KvCache cache = cache_of(layer, {40, 3, 2}, tokens);
      content = saved(cache);
      return attend(cache, 0, 0, 5, q);
    };
    omp_set_num_threads(1);
    std::string content, other;
    const Attention expected = run(content);
    for (const int threads : {2, 7}) {
      omp_set_num_threads(threads);
      CHECK(run(other).same_bits(expected));
      CHECK(other == content);
    }
    for (const std::int64_t target : targets) {
      const tq::test::ForcedTarget forced(target);
      CHECK(run(other).same_bits(expected));
      CHECK(other == content);
    }
  }
  omp_set_num_threads(before);
}

TEST_CASE("bytes used") {
  tq::Random random = test_random(100);
  for (const CacheLayer& layer : sample_layers(64, 2, random)) {
    for (const std::size_t n : {0u, 2u, 30u, 200u}) {
      CAPTURE(tq::test::describe(layer));
      CAPTURE(n);
      const CachePolicy policy{20, 3, 4};
      KvCache cache({layer, layer}, policy, 2);
      const SampleTokens tokens(layer, n, random);
      cache.prefill(1, 0, tokens.k.data(), tokens.v.data(), n);
      cache.prefill(0, 1, tokens.k.data(), tokens.v.data(), n);
      const tq::CacheBytes bytes = cache.bytes_used();
      const TokenCounts counts = tq::token_counts(policy, n);
      constexpr std::size_t kExactToken = 2 * 2 * 2 * 64;  // keys and values, halves, heads, d
      const std::size_t exact_page = 64 * kExactToken, window = (20 + 4 - 1) * kExactToken;
      if (layer.exact()) {
        CHECK(bytes.total() == 2 * n * kExactToken);
        CHECK(bytes.exact_layers == bytes.total());
        CHECK(bytes.allocated == 2 * ((n + 63) / 64) * exact_page);
        continue;
      }
      const auto key = static_cast<std::size_t>(tq::bytes_per_token(layer.key_codec(0).config(), 64));
      const auto value = static_cast<std::size_t>(tq::bytes_per_token(layer.value_codec(0).config(), 64));
      CHECK(bytes.key_codes + bytes.key_scalars == 2 * counts.quantised * 2 * key);
      CHECK(bytes.value_codes + bytes.value_scalars == 2 * counts.quantised * 2 * value);
      const auto bits = static_cast<std::size_t>(layer.key_codec(0).config().bits);
      CHECK(bytes.key_codes == 2 * counts.quantised * 2 * 64 * bits / 8);
      CHECK(bytes.sinks == 2 * counts.sinks * kExactToken);
      CHECK(bytes.window == 2 * counts.window * kExactToken);
      CHECK(bytes.exact_layers == 0);
      CHECK(bytes.allocated == 2 * ((counts.quantised + 63) / 64 * 64 * 2 * (key + value) +
                                    (counts.sinks > 0 ? exact_page : 0) + (counts.window > 0 ? window : 0)));
    }
  }
}

TEST_CASE("misuse is refused and changes nothing") {
  tq::Random random = test_random(101);
  const CacheLayer layer = small_layer(random);
  const auto make = [](CacheLayer config, CachePolicy policy = {}, int batch = 1) {
    return KvCache({std::move(config)}, policy, batch);
  };
  CHECK_NOTHROW(make(layer));
  CHECK_THROWS_AS(KvCache({}, {}), UsageError);
  CHECK_THROWS_AS(make(layer, {}, 0), UsageError);
  CHECK_THROWS_AS(make(layer, {-1, 0, 1}), UsageError);
  CHECK_THROWS_AS(make(layer, {1, -1, 1}), UsageError);
  CHECK_THROWS_AS(make(layer, {1, 0, 0}), UsageError);
  CHECK_THROWS_AS(make(layer, {1 << 25, 0, 1}), UsageError);
  const auto refused = [&](auto change) {
    CacheLayer changed = layer;
    change(changed);
    CHECK_THROWS_AS(make(changed), UsageError);
  };
  refused([](CacheLayer& l) { l.head_dim = 128; });
  refused([](CacheLayer& l) { l.head_dim = 0; });
  refused([](CacheLayer& l) { l.num_kv_heads = 0; });
  refused([](CacheLayer& l) { l.num_kv_heads = 3; });
  refused([](CacheLayer& l) { l.keys.clear(); });
  refused([](CacheLayer& l) { l.values.clear(); });
  refused([](CacheLayer& l) { l.keys[1] = nullptr; });
  refused([&](CacheLayer& l) { l.keys[1] = sample_layers(64, 1, random)[0].keys[0]; });
  refused([&](CacheLayer& l) { l.values[1] = sample_layers(64, 1, random)[0].values[0]; });
  CHECK_THROWS_AS(make(tq::test::exact_layer(60, 2)), UsageError);

  const SampleTokens tokens(layer, 50, random);
  KvCache cache({layer}, {10, 0, 1});
  cache.prefill(0, 0, tokens.k.data(), tokens.v.data(), 0);
  cache.prefill(0, 0, tokens.k.data(), tokens.v.data(), 50);
  const std::string content = saved(cache);
  CHECK_THROWS_AS(cache.prefill(0, 0, tokens.k.data(), tokens.v.data(), 1), UsageError);
  CHECK_THROWS_AS(cache.append(1, 0, tokens.k.data(), tokens.v.data()), std::out_of_range);
  CHECK_THROWS_AS(cache.append(-1, 0, tokens.k.data(), tokens.v.data()), std::out_of_range);
  CHECK_THROWS_AS(cache.append(0, 1, tokens.k.data(), tokens.v.data()), std::out_of_range);
  std::vector<float> out(1000);
  CHECK_THROWS_AS(cache.attend(0, 1, out.data(), 2, 1, out.data()), std::out_of_range);
  CHECK_THROWS_AS(cache.attend(0, -1, out.data(), 2, 1, out.data()), std::out_of_range);
  CHECK_THROWS_AS(cache.attend_batch(2, out.data(), 2, 1, out.data()), std::out_of_range);
  CHECK_THROWS_AS(cache.attend(0, 0, out.data(), 3, 1, out.data()), UsageError);
  CHECK_THROWS_AS(cache.attend(0, 0, out.data(), 0, 1, out.data()), UsageError);
  CHECK_THROWS_AS(cache.scores(0, 0, out.data(), 1, out.data()), UsageError);
  cache.append(0, 0, tokens.k.data(), tokens.v.data(), 0);
  CHECK(saved(cache) == content);
}
