#include <doctest/doctest.h>

#include <cmath>
#include <filesystem>
#include <string>
#include <vector>

#include "calibration/calibrate.h"
#include "calibration/evaluate_capture.h"
#include "core/error.h"
#include "datasets/capture.h"
#include "datasets/synthetic.h"
#include "tests/support/test_seed.h"

// The numbers of calibration on the real sample are checked against NumPy in tests/experiments; here are the
// shapes of captures that the sample does not have.

namespace {

namespace fs = std::filesystem;

class TemporaryFolder {
 public:
  TemporaryFolder()
      : path_(fs::temp_directory_path() / ("tq-test-" + std::to_string(tq::test::test_seed()))) {
    fs::create_directories(path_);
  }
  ~TemporaryFolder() { fs::remove_all(path_); }
  std::string file(const char* name) const { return (path_ / name).string(); }

 private:
  fs::path path_;
};

void nothing(std::size_t) {}

std::string synthetic_capture(const TemporaryFolder& folder, std::size_t query_tokens,
                              tq::Distribution distribution, std::size_t tokens = 700, int head_dim = 64) {
  tq::SyntheticCapture spec;
  spec.rows.distribution = distribution;
  spec.rows.head_dim = head_dim;
  spec.num_layers = 2;
  spec.num_kv_heads = 3;
  spec.num_q_heads = 6;
  spec.tokens = tokens;
  spec.query_tokens = query_tokens;
  spec.seed = tq::test::test_seed();
  const std::string path = folder.file("synthetic.kv.h5");
  tq::write_synthetic_capture(path, spec);
  return path;
}

tq::CalibrationOptions prod_options(tq::AlphaTarget alpha) {
  tq::CalibrationOptions options;
  options.key = {tq::KeyMode::prod, 3, tq::ScaleRule::nc, tq::SketchKind::orthogonal};
  options.alpha = alpha;
  return options;
}

}  // namespace

TEST_CASE("tables by head: one a KV head, and the artefact is valid") {
  const TemporaryFolder folder;
  tq::CaptureReader capture(synthetic_capture(folder, 40, tq::Distribution::outliers));
  tq::CalibrationOptions options = prod_options(tq::AlphaTarget::mse);
  options.per_head = true;
  const tq::Artefact artefact = tq::calibrate(capture, options, nothing);
  CHECK_NOTHROW(tq::validate(artefact, "artefact"));
  for (const tq::LayerArtefact& layer : artefact.layers) {
    REQUIRE(layer.key_gate.candidates.size() == 3);
    CHECK(layer.key_tables.size() == (layer.key_gate.kept == 0 ? 1u : 3u));
    for (const tq::Candidate& candidate : layer.key_gate.candidates)
      CHECK(candidate.held_out.softmax_kl.has_value());
  }
  const std::string path = folder.file("heads.tq.h5");
  tq::write_artefact(artefact, path);
  const tq::Artefact read = tq::read_artefact(path);
  CHECK(read.layers[1].key_tables == artefact.layers[1].key_tables);
}

TEST_CASE("every alpha target gives a valid artefact, and a fitted alpha wins on isotropic keys") {
  const TemporaryFolder folder;
  tq::CaptureReader capture(synthetic_capture(folder, 40, tq::Distribution::gaussian));
  for (const auto target : {tq::AlphaTarget::mse, tq::AlphaTarget::cos, tq::AlphaTarget::score}) {
    CAPTURE(tq::to_string(target));
    const tq::Artefact artefact = tq::calibrate(capture, prod_options(target), nothing);
    for (const tq::LayerArtefact& layer : artefact.layers) {
      CHECK(layer.key_gate.kept != 0);
      const double alpha = layer.key_tables.front().qjl_scale;
      // cos and mse differ little here; score has few queries, so it is only near.
      const double tolerance = target == tq::AlphaTarget::score ? 0.1 : 0.03;
      CHECK(alpha == doctest::Approx(tq::isotropic_alpha_orthogonal(64)).epsilon(tolerance));
    }
  }
}

TEST_CASE("without queries the gate uses the cosine, and the score target is refused") {
  const TemporaryFolder folder;
  tq::CaptureReader capture(synthetic_capture(folder, 0, tq::Distribution::student_t));
  const tq::Artefact artefact = tq::calibrate(capture, prod_options(tq::AlphaTarget::mse), nothing);
  for (const tq::LayerArtefact& layer : artefact.layers) {
    CHECK(layer.key_gate.reason.find("cosine") != std::string::npos);
    CHECK_FALSE(layer.key_gate.candidates[0].held_out.softmax_kl.has_value());
  }
  CHECK_THROWS_AS(tq::calibrate(capture, prod_options(tq::AlphaTarget::score), nothing), tq::UsageError);
}

TEST_CASE("interleaved blocks hold out what they say") {
  const TemporaryFolder folder;
  tq::CaptureReader capture(synthetic_capture(folder, 10, tq::Distribution::gaussian, 1000));
  tq::CalibrationOptions options;
  options.holdout = tq::Holdout::blocks;
  const tq::Artefact artefact = tq::calibrate(capture, options, nothing);
  CHECK(artefact.provenance.held_out_tokens == 128 * 3 + 104);
  CHECK(artefact.provenance.fit_tokens == 128 * 4);
}

TEST_CASE("ready residuals give alpha alone") {
  const TemporaryFolder folder;
  const std::size_t rows = 2000, d = 64;
  tq::Random random = tq::test::test_random(930);
  const std::vector<float> residuals = tq::test::normal_values(random, rows * 2 * d, 0.3);
  const std::string path = folder.file("residuals.kv.h5");
  {
    tq::CaptureSpec spec;
    spec.model = "test";
    spec.num_q_heads = spec.num_kv_heads = 2;
    spec.head_dims = {static_cast<int>(d)};
    tq::CaptureWriter writer(path, spec);
    writer.append(0, tq::Tensor::k_residual, residuals);
    writer.finish();
  }
  tq::CaptureReader capture(path);
  const tq::Artefact artefact = tq::calibrate(capture, prod_options(tq::AlphaTarget::mse), nothing);
  const tq::LayerArtefact& layer = artefact.layers.front();
  CHECK(layer.key_gate.kept == 1);
  CHECK(layer.key_tables.front().qjl_scale ==
        doctest::Approx(tq::isotropic_alpha_orthogonal(64)).epsilon(0.01));
  // Residual energies in theory, for an isotropic residual and an orthogonal sketch: unbiased 0.57, alpha*
  // 0.36.
  CHECK(layer.key_gate.candidates[0].held_out.relative_mse == doctest::Approx(0.57).epsilon(0.03));
  CHECK(layer.key_gate.candidates[1].held_out.relative_mse == doctest::Approx(0.36).epsilon(0.03));
  CHECK_THROWS_AS(tq::calibrate(capture, prod_options(tq::AlphaTarget::cos), nothing), tq::UsageError);
  CHECK_THROWS_AS(tq::calibrate(capture, tq::CalibrationOptions(), nothing), tq::UsageError);
}

TEST_CASE("layers of different head_dim get rotations of their own") {
  const TemporaryFolder folder;
  const std::string path = folder.file("mixed.kv.h5");
  const std::vector<int> dims{64, 96, 64};
  {
    tq::CaptureSpec spec;
    spec.model = "test";
    spec.num_q_heads = 4;
    spec.num_kv_heads = 2;
    spec.head_dims = dims;
    tq::CaptureWriter writer(path, spec);
    tq::Random random = tq::test::test_random(931);
    for (int layer = 0; layer < 3; ++layer) {
      const std::size_t d = static_cast<std::size_t>(dims[static_cast<std::size_t>(layer)]);
      writer.append(layer, tq::Tensor::k, tq::test::normal_values(random, 300 * 2 * d));
      writer.append(layer, tq::Tensor::v, tq::test::normal_values(random, 300 * 2 * d));
      writer.append(layer, tq::Tensor::q, tq::test::normal_values(random, 5 * 4 * d));
    }
    std::vector<std::int32_t> positions(300), sequences(300, 0);
    for (std::size_t i = 0; i < positions.size(); ++i) positions[i] = static_cast<std::int32_t>(i);
    writer.append_tokens(positions, sequences);
    writer.append_queries(std::vector<std::int32_t>{100, 150, 200, 250, 299},
                          std::vector<std::int32_t>(5, 0));
    writer.finish();
  }
  tq::CaptureReader capture(path);
  const tq::Artefact artefact = tq::calibrate(capture, tq::CalibrationOptions(), nothing);
  CHECK(artefact.rotations.size() == 2);
  const tq::CaptureReport report = tq::evaluate_capture(capture, artefact, nothing);
  REQUIRE(report.layers.size() == 3);
  CHECK(report.layers[1].head_dim == 96);
  CHECK(*report.layers[1].metrics.key_cosine == doctest::Approx(0.983).epsilon(0.002));
  CHECK(report.overall.bytes_per_token == 2 * (2 * (24 + 2) * 2 + 2 * (36 + 2)));

  tq::CalibrationOptions grouped;
  grouped.value = {tq::ValueMode::group, 2, 64, tq::ScaleRule::nc};
  CHECK_THROWS_AS(tq::calibrate(capture, grouped, nothing), tq::UsageError);  // 64 does not divide 96
}

TEST_CASE("a layer too large to keep is read again, with the same blocks") {
  const TemporaryFolder folder;
  tq::CaptureReader capture(synthetic_capture(folder, 5, tq::Distribution::gaussian, 900));
  const tq::TokenSplit split(tq::Holdout::blocks, 900);
  tq::LayerStream kept(capture, 1, &split), streamed(capture, 1, &split, 0);
  for (int pass = 0; pass < 2; ++pass) {
    std::vector<tq::TokenBlock> a, b;
    kept.for_each([&](const tq::TokenBlock& block) { a.push_back(block); });
    streamed.for_each([&](const tq::TokenBlock& block) { b.push_back(block); });
    REQUIRE(a.size() == b.size());
    REQUIRE(a.size() == 8);
    std::size_t next = 0;
    for (std::size_t i = 0; i < a.size(); ++i) {
      CHECK(a[i].begin == next);
      CHECK(a[i].k == b[i].k);
      CHECK(a[i].v == b[i].v);
      CHECK(a[i].positions == b[i].positions);
      next += a[i].count;
    }
    CHECK(next == 900);
  }
}
