#include <doctest/doctest.h>
#include <fmt/format.h>

#include <filesystem>
#include <memory>
#include <sstream>
#include <string>
#include <variant>
#include <vector>

#include "core/kv_cache.h"
#include "tests/support/cache_samples.h"
#include "tests/support/exact_inputs.h"
#include "tests/support/golden.h"
#include "tests/support/simd_targets.h"
#include "tests/support/temporary_folder.h"

using tq::CacheLayer;
using tq::EncodedGroups;
using tq::EncodedKeys;
using tq::KeyCodec;
using tq::KeyConfig;
using tq::KeyMode;
using tq::KvCache;
using tq::Rotation;
using tq::RotationKind;
using tq::ScaleRule;
using tq::Sketch;
using tq::SketchKind;
using tq::ValueCodec;
using tq::ValueConfig;
using tq::ValueMode;
using tq::test::ByteString;
using tq::test::exact_codebook;
using tq::test::exact_rows;
using tq::test::GoldenDigests;
using tq::test::on_every_target;

// Encoded vectors are on disk in the file of a KV cache: its version is that of the codecs.

namespace {

constexpr std::size_t kRows = 270;  // more than one thread takes at a time
constexpr int kDim = 16;            // of the cache

std::string cache_version() {
  const std::string empty = tq::test::saved(KvCache({tq::test::exact_layer(16, 1)}, {}));
  return fmt::format("kv-cache {}", static_cast<int>(empty[8]));
}

std::shared_ptr<const Rotation> rht(int d) {
  return std::make_shared<const Rotation>(Rotation::make(RotationKind::rht, d, 1));
}
std::shared_ptr<const Rotation> dense(int d) {
  return std::make_shared<const Rotation>(tq::test::exact_dense_rotation(static_cast<std::size_t>(d)));
}
std::shared_ptr<const Sketch> sketch(SketchKind kind, int d) {
  return std::make_shared<const Sketch>(Sketch::make(kind, d, 2));
}

std::string text_of(const EncodedKeys& keys) {
  return ByteString().add(keys.codes).add(keys.scales).add(keys.signs).add(keys.residual_norms).text();
}
std::string text_of(const EncodedGroups& groups) {
  return ByteString().add(groups.codes).add(groups.zeros).add(groups.scales).text();
}

struct Encodings {
  GoldenDigests golden{"encodings"};
  std::string version = cache_version();

  void check_keys(const KeyConfig& config, const std::shared_ptr<const Rotation>& rotation) {
    const int d = rotation->head_dim();
    const bool prod = config.mode == KeyMode::prod;
    const KeyCodec codec(config, rotation, prod ? sketch(config.sketch, d) : nullptr,
                         {exact_codebook(config.table_bits()), prod ? 0.75 : 0.0});
    const std::vector<float> x = exact_rows(3, kRows, static_cast<std::size_t>(d));
    EncodedKeys keys;
    codec.encode(x.data(), kRows, keys);
    golden.check(fmt::format("{}, keys {} of {}, {}", version, tq::describe(config), d,
                             tq::to_string(rotation->kind())),
                 text_of(keys));
  }

  void check_values(const ValueConfig& config, int d) {
    const bool rotated = config.mode == ValueMode::rotated;
    const ValueCodec codec(config, d, rotated ? rht(d) : nullptr,
                           rotated ? exact_codebook(config.bits) : tq::Codebook());
    const std::vector<float> x = exact_rows(4, kRows, static_cast<std::size_t>(d));
    tq::EncodedValues values;
    codec.encode(x.data(), kRows, values);
    golden.check(fmt::format("{}, values {} of {}", version, tq::describe(config), d),
                 std::visit([](const auto& encoded) { return text_of(encoded); }, values));
  }
};

// Every mode, scale rule, sketch and rotation; the third layer has tables of its own for each head, and
// boundaries that are no midpoints.
std::vector<CacheLayer> frozen_layers() {
  const auto layer = [](const KeyConfig& key, const ValueConfig& value, int kv_heads,
                        const std::shared_ptr<const Rotation>& rotation) {
    CacheLayer made{kDim, kv_heads, {}, {}};
    const bool prod = key.mode == KeyMode::prod, rotated = value.mode == ValueMode::rotated;
    for (int head = 0; head < kv_heads; ++head) {
      made.keys.push_back(std::make_shared<const KeyCodec>(
          key, rotation, prod ? sketch(key.sketch, kDim) : nullptr,
          tq::KeyTables{exact_codebook(key.table_bits(), head == 0), prod ? 0.75 + 0.25 * head : 0.0}));
      made.values.push_back(std::make_shared<const ValueCodec>(
          value, kDim, rotated ? rotation : nullptr,
          rotated ? exact_codebook(value.bits, head == 0) : tq::Codebook()));
    }
    return made;
  };
  return {
      layer({KeyMode::mse, 3, ScaleRule::nc, {}}, {ValueMode::rotated, 3, 32, ScaleRule::nc}, 1, rht(kDim)),
      layer({KeyMode::mse, 2, ScaleRule::norm, {}}, {ValueMode::rotated, 4, 32, ScaleRule::ls}, 1,
            dense(kDim)),
      layer({KeyMode::prod, 3, ScaleRule::nc, SketchKind::orthogonal},
            {ValueMode::rotated, 2, 32, ScaleRule::norm}, 2, rht(kDim)),
      layer({KeyMode::prod, 4, ScaleRule::nc, SketchKind::gaussian}, {ValueMode::group, 3, 8, {}}, 1,
            rht(kDim)),
      tq::test::exact_layer(kDim, 1),
  };
}

KvCache empty_cache() { return KvCache(frozen_layers(), {3, 1, 2}, 2); }

// The second sequence fills more than a page of 64 tokens, and its window's ring begins in its middle.
KvCache frozen_cache() {
  KvCache cache = empty_cache();
  for (int layer = 0; layer < cache.layers(); ++layer) {
    const auto width = static_cast<std::size_t>(kDim * cache.layer(layer).num_kv_heads);
    const std::size_t tokens = cache.layer(layer).exact() ? 6 : 68;
    const std::vector<float> k = exact_rows(5, tokens, width), v = exact_rows(6, tokens, width);
    cache.append(layer, 0, k.data(), v.data(), 3);
    for (std::size_t t = 0; t < tokens; ++t)
      cache.append(layer, 1, k.data() + t * width, v.data() + t * width);
  }
  return cache;
}

}  // namespace

TEST_CASE("frozen: encoded keys") {
  Encodings encodings;
  on_every_target([&] {
    for (int bits = 1; bits <= 8; ++bits) {
      for (const ScaleRule rule : {ScaleRule::norm, ScaleRule::nc, ScaleRule::ls})
        encodings.check_keys({KeyMode::mse, bits, rule, {}}, rht(64));
      for (const SketchKind kind : {SketchKind::orthogonal, SketchKind::gaussian}) {
        if (bits > 1) encodings.check_keys({KeyMode::prod, bits, ScaleRule::nc, kind}, rht(64));
      }
    }
    for (const auto& rotation : {rht(80), rht(128), dense(64)}) {
      encodings.check_keys({KeyMode::mse, 3, ScaleRule::nc, {}}, rotation);
      encodings.check_keys({KeyMode::prod, 3, ScaleRule::nc, SketchKind::orthogonal}, rotation);
    }
  });
}

TEST_CASE("frozen: encoded values") {
  Encodings encodings;
  on_every_target([&] {
    for (const int bits : {2, 3, 4, 8}) {
      for (const int size : {8, 32}) encodings.check_values({ValueMode::group, bits, size, {}}, 64);
      encodings.check_values({ValueMode::group, bits, 16, {}}, 80);
    }
    for (const ScaleRule rule : {ScaleRule::norm, ScaleRule::nc, ScaleRule::ls}) {
      for (const int bits : {2, 3, 4}) encodings.check_values({ValueMode::rotated, bits, 32, rule}, 64);
    }
  });
}

TEST_CASE("frozen: the file of a KV cache") {
  on_every_target([] {
    const std::string now = tq::test::saved(frozen_cache());
    const int version = static_cast<int>(now[8]);
    tq::test::check_golden_file(fmt::format("kv_cache_version_{}.bin", version), now);
    // Files of every version so far are read, and hold the same cache.
    for (int earlier = 1; earlier <= version; ++earlier) {
      CAPTURE(earlier);
      const std::string path = tq::test::golden_path(fmt::format("kv_cache_version_{}.bin", earlier));
      REQUIRE(std::filesystem::exists(path));
      std::istringstream stream(tq::test::read_text(path));
      KvCache restored = empty_cache();
      restored.restore(stream);
      const bool same = tq::test::saved(restored) == now;  // the bytes themselves are not for printing
      CHECK(same);
    }
  });
}
