#include <doctest/doctest.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "calibration/artefact/digest.h"
#include "calibration/calibrate.h"
#include "core/error.h"
#include "datasets/capture.h"
#include "tests/support/temporary_folder.h"
#include "tests/support/test_seed.h"

using tq::Random;
using tq::test::test_random;

namespace {

void nothing(std::size_t) {}

enum Kind { zeros, constant, one_hot, denormal, smallest, largest, repeated, mixed, kKinds };

// rows x d of one kind; mixed: of them all.
std::vector<float> rows_of(Kind kind, Random& random, std::size_t rows, std::size_t d) {
  std::vector<float> x = tq::test::normal_values(random, rows * d);
  for (std::size_t row = 0; row < rows; ++row) {
    float* const begin = x.data() + row * d;
    const auto each = kind == mixed ? static_cast<Kind>(random.below(mixed)) : kind;
    const auto scale = [&](float size) {
      for (std::size_t i = 0; i < d; ++i) begin[i] = std::clamp(begin[i] * size, -6e4f, 6e4f);
    };
    switch (each) {
      case zeros:
        scale(0);
        break;
      case constant:
        std::fill(begin, begin + d, begin[0]);
        break;
      case one_hot: {
        const float value = begin[0];
        scale(0);
        begin[random.below(static_cast<std::uint32_t>(d))] = value;
        break;
      }
      case denormal:
        scale(1e-42f);
        break;
      case smallest:
        scale(1e-38f);
        break;
      case largest:
        scale(6e4f);
        break;
      case repeated:  // one vector, again and again
        std::copy(x.data(), x.data() + d, begin);
        break;
      default:
        break;
    }
  }
  return x;
}

void check_finite(const tq::GateRecord& gate) {
  for (const tq::Candidate& candidate : gate.candidates) {
    for (const tq::TableMetrics* part : {&candidate.fit, &candidate.held_out}) {
      CHECK(std::isfinite(part->relative_mse));
      CHECK(std::isfinite(part->cosine));
      CHECK(std::isfinite(part->softmax_kl.value_or(0)));
      CHECK(std::isfinite(part->output_error.value_or(0)));
    }
  }
}

}  // namespace

TEST_CASE("properties: a capture of hard vectors gives a valid artefact and finite evidence") {
  Random random = test_random(240);
  constexpr std::size_t kTokens = 160, kQueries = 8;
  for (int repeat = 0; repeat < 3 * kKinds; ++repeat) {
    const auto kind = static_cast<Kind>(repeat % kKinds);
    const int d = 8 * static_cast<int>(2 + random.below(3));  // 16, 24, 32
    const auto width = static_cast<std::size_t>(d);
    tq::CaptureSpec spec;
    spec.num_q_heads = spec.num_kv_heads = 1;
    spec.head_dims = {d};
    spec.storage = tq::ElementType::float32;
    const tq::test::TemporaryFolder folder;
    const std::string path = folder / "hard.kv.h5";
    {
      tq::CaptureWriter writer(path, spec);
      writer.append(0, tq::Tensor::k, rows_of(kind, random, kTokens, width));
      writer.append(0, tq::Tensor::v, rows_of(kind, random, kTokens, width));
      writer.append(0, tq::Tensor::q, rows_of(repeat % 2 ? mixed : kind, random, kQueries, width));
      std::vector<std::int32_t> positions(kQueries);
      for (std::size_t i = 0; i < kQueries; ++i)
        positions[i] = static_cast<std::int32_t>(kTokens - kQueries + i);
      writer.append_queries(positions, std::vector<std::int32_t>(kQueries, 0));
      writer.finish();
    }
    tq::CalibrationOptions options;
    const bool prod = random.below(2) == 1, group = random.below(2) == 1;
    options.key = {prod ? tq::KeyMode::prod : tq::KeyMode::mse, static_cast<int>(2 + random.below(3)),
                   static_cast<tq::ScaleRule>(random.below(3)), tq::SketchKind::gaussian};
    options.value = {group ? tq::ValueMode::group : tq::ValueMode::rotated,
                     static_cast<int>(2 + random.below(3)), 8, static_cast<tq::ScaleRule>(random.below(3))};
    options.per_head = random.below(2) == 1;
    options.rotation = d == 16 || random.below(2) == 0 ? tq::RotationKind::qr : tq::RotationKind::rht;
    options.alpha = static_cast<tq::AlphaTarget>(random.below(4));
    INFO("kind ", static_cast<int>(kind), ", d ", d, ", keys ", tq::describe(options.key), ", values ",
         tq::describe(options.value), ", alpha ", tq::to_string(options.alpha));
    tq::CaptureReader capture(path);
    tq::Artefact artefact;
    try {
      artefact = tq::calibrate(capture, options, nothing);
    } catch (const tq::InputError& error) {
      // Where nothing can be fitted, to zeros or to scores of 0, one line says so, and where.
      CHECK(std::string(error.what()).starts_with(path + ": layer 0: "));
      CHECK(std::string(error.what()).find('\n') == std::string::npos);
      MESSAGE(std::string(error.what()));
      continue;
    }
    CHECK_NOTHROW(tq::validate(artefact, "artefact"));
    for (const tq::LayerArtefact& layer : artefact.layers) {
      check_finite(layer.key_gate);
      check_finite(layer.value_gate);
    }
    tq::write_artefact(artefact, folder / "hard.tq.h5");
    CHECK(tq::artefact_digest(tq::read_artefact(folder / "hard.tq.h5")) == tq::artefact_digest(artefact));
  }
}
