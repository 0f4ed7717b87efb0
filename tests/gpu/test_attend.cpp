#include <fmt/format.h>

#include <cstdio>
#include <cstdlib>
#include <mutex>

#include "kernel_templates/shapes.h"
#include "tests/gpu/gpu_support.h"
#include "tests/support/cache_samples.h"
#include "tests/support/test_seed.h"

namespace tq::test {
namespace {

using gpu::Element;

CacheLayer make_layer(int d, int heads, const KeyConfig& key, const ValueConfig& value, RotationKind kind,
                      Random& random) {
  CacheLayer layer;
  layer.head_dim = d;
  layer.num_kv_heads = heads;
  const auto rotation = std::make_shared<Rotation>(Rotation::make(kind, d, random.bits64()));
  std::shared_ptr<const Sketch> sketch;
  if (key.mode == KeyMode::prod)
    sketch = std::make_shared<Sketch>(Sketch::make(key.sketch, d, random.bits64()));
  layer.keys.push_back(std::make_shared<KeyCodec>(key, rotation, sketch, default_key_tables(key, d)));
  layer.values.push_back(std::make_shared<ValueCodec>(value, d, rotation, default_value_table(value, d)));
  return layer;
}

// Fills a cache with `lengths` tokens a sequence and checks one decode step.
Agreement attend_once(const CacheLayer& layer, const CachePolicy& policy,
                      const std::vector<std::size_t>& lengths, int q_heads, Element element, Random& random) {
  gpu::GpuKvCache cache(gpu(), {layer}, policy, static_cast<int>(lengths.size()));
  for (std::size_t s = 0; s < lengths.size(); ++s) {
    const SampleTokens sample(layer, lengths[s], random);
    const DeviceInput k(sample.k, element), v(sample.v, element);
    cache.prefill(0, static_cast<int>(s), k.vectors(), v.vectors(), lengths[s]);
    gpu().device().synchronize();
  }
  return check_attend(cache, 0, q_heads, element, random);
}

bool agrees(const Agreement& agreement) {
  return agreement.worst_error < 2e-3 && agreement.worst_cosine > 0.99999 && agreement.worst_lse < 2e-3;
}

std::vector<KeyConfig> key_configs() {
  std::vector<KeyConfig> configs;
  for (int bits = 2; bits <= 4; ++bits) {
    configs.push_back({KeyMode::mse, bits, ScaleRule::nc, SketchKind::orthogonal});
    configs.push_back({KeyMode::prod, bits, ScaleRule::nc, SketchKind::orthogonal});
    configs.push_back({KeyMode::prod, bits, ScaleRule::nc, SketchKind::gaussian});
  }
  return configs;
}
std::vector<ValueConfig> value_configs(int d) {
  std::vector<ValueConfig> configs;
  for (int bits = 2; bits <= 4; ++bits) configs.push_back({ValueMode::rotated, bits, 32, ScaleRule::nc});
  for (const int bits : {2, 3, 4, 8}) {
    for (const int size : {16, 32, 64, 128}) {
      if (d % size == 0) configs.push_back({ValueMode::group, bits, size, ScaleRule::nc});
    }
  }
  return configs;
}

}  // namespace

TEST_CASE(
    "the seed's nine rows of fused decode, and the same with 4 and 8 bits, other d and grouped queries") {
  struct Row {
    int heads, group;
    std::size_t tokens;
    int d, bits, size;
  };
  const std::vector<Row> rows{{8, 1, 256, 128, 2, 32},   {16, 1, 1024, 128, 2, 32}, {16, 1, 1024, 256, 2, 32},
                              {32, 1, 4096, 128, 2, 32}, {8, 1, 256, 128, 3, 32},   {16, 1, 1024, 128, 3, 32},
                              {16, 1, 1024, 128, 3, 16}, {16, 1, 1024, 256, 3, 32}, {32, 1, 4096, 128, 3, 32},
                              {16, 1, 1024, 128, 4, 32}, {16, 1, 1024, 128, 8, 32}, {16, 1, 1024, 64, 3, 32},
                              {16, 1, 1024, 96, 3, 32},  {8, 4, 1024, 128, 3, 32},  {8, 8, 4096, 128, 3, 32},
                              {4, 16, 1024, 256, 4, 64}};
  std::vector<std::string> lines(rows.size());
  in_parallel(31, rows.size(), [&](std::size_t i, Random& random) {
    const Row& row = rows[i];
    const KeyConfig key{KeyMode::prod, 3, ScaleRule::nc, SketchKind::gaussian};
    const ValueConfig value{ValueMode::group, row.bits, row.size, ScaleRule::nc};
    const CacheLayer layer = make_layer(row.d, row.heads, key, value, RotationKind::qr, random);
    const Agreement agreement =
        attend_once(layer, {0, 0, 1}, {row.tokens}, row.heads * row.group, Element::f16, random);
    const bool pass = agrees(agreement);
    lines[i] = fmt::format(
        "BH={:2} N={:5} D={:3} vbits={} gs={:3} G={:2} max_err={:.2e} relative={:.2e} cos={:.8f} {}\n",
        row.heads, row.tokens, row.d, row.bits, row.size, row.group, agreement.largest_difference,
        agreement.worst_error, agreement.worst_cosine, pass ? "PASS" : "FAIL");
    CHECK(pass);
  });
  for (const std::string& line : lines) fmt::print("{}", line);
}

TEST_CASE("random specialisations, groups, lengths and windows") {
  std::mutex mutex;
  Agreement worst;
  const Element elements[] = {Element::f32, Element::f16, Element::bf16};
  in_parallel(32, 60, [&](std::size_t, Random& random) {
    const int d = gpu::kGpuHeadDims[random.below(6)], heads = 1 + static_cast<int>(random.below(3));
    const int group = 1 + static_cast<int>(random.below(16));
    const auto keys = key_configs();
    const auto values = value_configs(d);
    const KeyConfig key = keys[random.below(static_cast<std::uint32_t>(keys.size()))];
    const ValueConfig value = values[random.below(static_cast<std::uint32_t>(values.size()))];
    const RotationKind kind = random.below(3) == 0 ? RotationKind::qr : RotationKind::rht;
    const CacheLayer layer = make_layer(d, heads, key, value, kind, random);
    const CachePolicy policy{static_cast<int>(random.below(200)), static_cast<int>(random.below(3) * 5),
                             1 + static_cast<int>(random.below(20))};
    const std::vector<std::size_t> lengths{random.below(2), random.below(400), 1 + random.below(2500)};
    const Agreement agreement =
        attend_once(layer, policy, lengths, heads * group, elements[random.below(3)], random);
    CHECK_MESSAGE(agrees(agreement), "d ", d, " ", describe(key), " / ", describe(value), " group ", group,
                  " recent ", policy.recent, " sinks ", policy.sinks, " lengths ", lengths[1], " ",
                  lengths[2], ": ", describe(agreement));
    const std::lock_guard lock(mutex);
    if (!(agreement.worst_error <= worst.worst_error)) worst.worst_error = agreement.worst_error;
    if (!(agreement.worst_cosine >= worst.worst_cosine)) worst.worst_cosine = agreement.worst_cosine;
    if (!(agreement.worst_lse <= worst.worst_lse)) worst.worst_lse = agreement.worst_lse;
  });
  MESSAGE("worst: ", describe(worst));
}

// Averages over many random values are small beside them: what is lost to rounding shows most.
TEST_CASE("values of every kind over many tokens") {
  std::vector<ValueConfig> values{{ValueMode::rotated, 3, 32, ScaleRule::nc}};
  for (const int bits : {2, 3, 4, 8}) values.push_back({ValueMode::group, bits, 32, ScaleRule::nc});
  in_parallel(34, values.size(), [&](std::size_t i, Random& random) {
    const KeyConfig key{KeyMode::prod, 3, ScaleRule::nc, SketchKind::orthogonal};
    const CacheLayer layer = make_layer(128, 2, key, values[i], RotationKind::rht, random);
    const Agreement agreement = attend_once(layer, {0, 0, 1}, {32768}, 16, Element::f16, random);
    CHECK_MESSAGE(agrees(agreement), describe(values[i]), ": ", describe(agreement));
    MESSAGE(describe(values[i]), ": ", describe(agreement));
  });
}

TEST_CASE("every attention kernel of the catalogue") {
  const char* wanted = std::getenv("TQ_GPU_FULL");
  if (wanted == nullptr) {
    MESSAGE(
        "skipped: set TQ_GPU_FULL=1 (some 2,500 kernels are compiled: minutes), or 1/4, 2/4, .. for a share");
    return;
  }
  unsigned share = 1, shares = 1;
  REQUIRE(std::sscanf(wanted, "%u/%u", &share, &shares) >= 1);
  REQUIRE((share >= 1 && share <= shares));
  struct Case {
    int d;
    RotationKind kind;
    KeyConfig key;
    ValueConfig value;
  };
  std::vector<Case> cases;
  for (const int d : gpu::kGpuHeadDims) {
    for (const RotationKind kind : {RotationKind::rht, RotationKind::qr}) {
      for (const KeyConfig& key : key_configs()) {
        for (const ValueConfig& value : value_configs(d)) cases.push_back({d, kind, key, value});
      }
    }
  }
  std::vector<Case> mine;
  for (std::size_t i = share - 1; i < cases.size(); i += shares) mine.push_back(cases[i]);
  cases = std::move(mine);
  std::mutex mutex;
  std::size_t checked = 0;
  double worst = 0, worst_cosine = 1;
  in_parallel(33, cases.size(), [&](std::size_t i, Random& random) {
    const auto& [d, kind, key, value] = cases[i];
    for (const int group : {1 + static_cast<int>(random.below(8)), 9 + static_cast<int>(random.below(8))}) {
      const CacheLayer layer = make_layer(d, 2, key, value, kind, random);
      const Agreement agreement =
          attend_once(layer, {20, 3, 1}, {200 + random.below(300)}, 2 * group, Element::f16, random);
      CHECK_MESSAGE(agrees(agreement), "d ", d, " ", to_string(kind), " ", describe(key), " / ",
                    describe(value), " group ", group, ": ", describe(agreement));
      const std::lock_guard lock(mutex);
      if (++checked % 200 == 0) fmt::print(stderr, "{} of {} rows\n", checked, 2 * cases.size());
      if (!(agreement.worst_error <= worst)) worst = agreement.worst_error;
      if (!(agreement.worst_cosine >= worst_cosine)) worst_cosine = agreement.worst_cosine;
    }
  });
  MESSAGE(checked, " rows; worst relative error ", worst, ", cosine ", worst_cosine);
}

}  // namespace tq::test
