#include <doctest/doctest.h>
#include <omp.h>

#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <variant>
#include <vector>

#include "core/attention.h"
#include "core/key_codec.h"
#include "core/value_codec.h"
#include "tests/support/simd_targets.h"
#include "tests/support/test_seed.h"

using tq::EncodedKeys;
using tq::KeyCodec;
using tq::KeyConfig;
using tq::KeyMode;
using tq::Rotation;
using tq::RotationKind;
using tq::ScaleRule;
using tq::Sketch;
using tq::SketchKind;
using tq::test::normal_values;
using tq::test::test_random;

namespace {

// Everything that core computes in its SIMD loops, as one string of bytes: equal strings are bit-identical
// results.
class Bytes {
 public:
  template <typename T>
  void add(const std::vector<T>& values) {
    const auto* begin = reinterpret_cast<const char*>(values.data());
    bytes_.append(begin, values.size() * sizeof(T));
  }
  const std::string& text() const { return bytes_; }

 private:
  std::string bytes_;
};

struct Input {
  int d;
  std::size_t rows;
  std::shared_ptr<const Rotation> rht, qr;
  std::shared_ptr<const Sketch> gaussian, orthogonal;
  std::vector<float> x, queries;

  Input(int head_dim, std::size_t row_count, tq::Random& random)
      : d(head_dim),
        rows(row_count),
        rht(std::make_shared<const Rotation>(Rotation::make(RotationKind::rht, d, random.bits64()))),
        qr(std::make_shared<const Rotation>(Rotation::make(RotationKind::qr, d, random.bits64()))),
        gaussian(std::make_shared<const Sketch>(Sketch::make(SketchKind::gaussian, d, random.bits64()))),
        orthogonal(std::make_shared<const Sketch>(Sketch::make(SketchKind::orthogonal, d, random.bits64()))),
        x(normal_values(random, rows * static_cast<std::size_t>(d))),
        queries(normal_values(random, 11 * static_cast<std::size_t>(d))) {}
};

void add_keys(const Input& in, const KeyConfig& config, Bytes& bytes) {
  const auto sketch = config.sketch == SketchKind::gaussian ? in.gaussian : in.orthogonal;
  const KeyCodec codec(config, config.bits % 2 == 0 ? in.qr : in.rht, sketch,
                       tq::default_key_tables(config, in.d));
  EncodedKeys keys;
  codec.encode(in.x.data(), in.rows, keys);
  bytes.add(keys.codes);
  bytes.add(keys.scales);
  bytes.add(keys.signs);
  bytes.add(keys.residual_norms);
  std::vector<float> decoded(in.x.size()), scores(11 * in.rows);
  codec.decode(keys, decoded.data());
  bytes.add(decoded);
  const tq::PreparedQueries prepared = codec.prepare(in.queries.data(), 11);
  bytes.add(prepared.rotated);
  bytes.add(prepared.sketched);
  codec.scores(prepared, keys, scores.data());
  bytes.add(scores);
  if (config.mode == KeyMode::prod) {
    std::vector<tq::ResidualProducts> products(in.rows);
    codec.residual_products(in.x.data(), in.rows, products.data());
    bytes.add(products);
    codec.residual_products_rotated(in.x.data(), in.rows, products.data());
    bytes.add(products);
  }
}

void add_values(const Input& in, const tq::ValueConfig& config, Bytes& bytes) {
  const tq::ValueCodec codec(config, in.d, in.rht, tq::default_value_table(config, in.d));
  tq::EncodedValues values;
  codec.encode(in.x.data(), in.rows, values);
  if (const auto* groups = std::get_if<tq::EncodedGroups>(&values)) {
    bytes.add(groups->codes);
    bytes.add(groups->zeros);
    bytes.add(groups->scales);
  }
  std::vector<float> decoded(in.x.size()), sums(5 * static_cast<std::size_t>(in.d));
  codec.decode(values, decoded.data());
  bytes.add(decoded);
  // Any weights do: the first rows x 5 of the data.
  codec.weighted_sum(in.x.data(), 5, values, sums.data());
  bytes.add(sums);
}

std::string everything(const Input& in) {
  Bytes bytes;
  for (const auto& rotation : {in.rht, in.qr}) {
    std::vector<float> out(in.x.size());
    rotation->forward(in.x.data(), out.data(), in.rows);
    bytes.add(out);
    rotation->inverse(in.x.data(), out.data(), in.rows);
    bytes.add(out);
  }
  for (int bits = 1; bits <= 8; ++bits) {
    const ScaleRule rule = static_cast<ScaleRule>(bits % 3);
    add_keys(in, {KeyMode::mse, bits, rule, SketchKind::orthogonal}, bytes);
    if (bits >= 2) {
      add_keys(in, {KeyMode::prod, bits, rule, bits % 3 == 0 ? SketchKind::gaussian : SketchKind::orthogonal},
               bytes);
    }
    add_values(in, {tq::ValueMode::rotated, bits, 32, rule}, bytes);
  }
  for (const int bits : {2, 3, 4, 8}) add_values(in, {tq::ValueMode::group, bits, 8, ScaleRule::nc}, bytes);
  const auto d = static_cast<std::size_t>(in.d);
  std::vector<float> scores(11 * in.rows);
  tq::dense_scores(in.queries.data(), 11, in.x.data(), in.rows, d, scores.data());
  bytes.add(scores);
  std::vector<tq::ErrorProducts> errors(in.rows);
  const std::vector<float> zeros(in.x.size());
  tq::error_products(in.x.data(), zeros.data(), in.rows, d, errors.data());
  bytes.add(errors);
  const std::vector<float> before = scores;
  tq::SoftmaxStream softmax;
  softmax.add(scores.data(), in.rows, 0);
  bytes.add(scores);
  bytes.add(
      std::vector<double>{softmax.sum(), softmax.log_sum_exp(),
                          tq::score_products(scores.data(), before.data(), before.data() + in.rows, in.rows)
                              .weighted_difference});
  return bytes.text();
}

}  // namespace

TEST_CASE("results do not depend on the thread count") {
  tq::Random random = test_random(80);
  const Input in(40, 2100, random);
  const int before = omp_get_max_threads();
  omp_set_num_threads(1);
  const std::string one = everything(in);
  for (const int threads : {2, 3}) {
    CAPTURE(threads);
    omp_set_num_threads(threads);
    const bool same = everything(in) == one;  // the bytes themselves are not for printing
    CHECK(same);
  }
  omp_set_num_threads(before);
}

TEST_CASE("results do not depend on the SIMD target") {
  const std::vector<std::int64_t> targets = hwy::SupportedAndGeneratedTargets();
  tq::Random random = test_random(81);
  for (const int d : {16, 80, 128, 576}) {
    const Input in(d, d > 128 ? 20 : 100, random);
    const std::string best = everything(in);
    for (const std::int64_t target : targets) {
      INFO("d = " << d << ", " << hwy::TargetName(target));
      const tq::test::ForcedTarget forced(target);
      REQUIRE(hwy::SupportedTargets() == target);
      const bool same = everything(in) == best;
      CHECK(same);
    }
  }
  std::string names;
  for (const std::int64_t target : targets) names += std::string(" ") + hwy::TargetName(target);
  MESSAGE("SIMD targets compared:" << names);
}
