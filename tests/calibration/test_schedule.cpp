#include <doctest/doctest.h>

#include <cstdint>
#include <vector>

#include "calibration/evaluate_capture.h"
#include "calibration/schedule.h"
#include "core/error.h"
#include "datasets/capture.h"
#include "tests/support/temporary_folder.h"
#include "tests/support/test_seed.h"

// Shapes that the sample does not have; its numbers are checked against NumPy in tests/experiments.

namespace {

void nothing(std::size_t) {}

// Two documents of 60 tokens each, layers of different head_dim; the queries of the second come last.
void write_mixed_capture(const std::string& path, const std::vector<int>& dims) {
  tq::CaptureSpec spec;
  spec.model = "test";
  spec.num_q_heads = 4;
  spec.num_kv_heads = 2;
  spec.head_dims = dims;
  tq::CaptureWriter writer(path, spec);
  tq::Random random = tq::test::test_random(943);
  for (std::size_t layer = 0; layer < dims.size(); ++layer) {
    const auto d = static_cast<std::size_t>(dims[layer]);
    const int index = static_cast<int>(layer);
    writer.append(index, tq::Tensor::k, tq::test::normal_values(random, 120 * 2 * d));
    writer.append(index, tq::Tensor::v, tq::test::normal_values(random, 120 * 2 * d));
    writer.append(index, tq::Tensor::q, tq::test::normal_values(random, 8 * 4 * d));
  }
  std::vector<std::int32_t> positions, sequences;
  for (std::int32_t token = 0; token < 120; ++token) {
    positions.push_back(token % 60);
    sequences.push_back(token / 60);
  }
  writer.append_tokens(positions, sequences);
  writer.append_queries(std::vector<std::int32_t>{20, 30, 40, 59, 20, 30, 40, 59},
                        std::vector<std::int32_t>{0, 0, 0, 0, 1, 1, 1, 1});
  writer.finish();
}

tq::ScheduleOptions options_of(std::int64_t budget) {
  tq::ScheduleOptions options;
  options.candidates.keys = {{.mode = tq::KeyMode::mse, .bits = 2}, {.mode = tq::KeyMode::prod, .bits = 4}};
  options.candidates.values = {{.mode = tq::ValueMode::rotated, .bits = 2},
                               {.mode = tq::ValueMode::group, .bits = 4, .group_size = 32}};
  options.budget = budget;
  return options;
}

}  // namespace

TEST_CASE("a schedule of layers of different head_dim") {
  const tq::test::TemporaryFolder folder;
  const std::vector<int> dims{64, 96, 64};
  write_mixed_capture(folder / "mixed.kv.h5", dims);
  tq::CaptureReader capture(folder / "mixed.kv.h5");
  // By hand: d = 64: mse2 18, prod4 36, rotated2 18, group4 40 bytes; d = 96: 26, 52, 26, 60.
  const std::int64_t least = 2 * (2 * (18 + 18) + 26 + 26), most = 2 * (2 * (36 + 40) + 52 + 60);
  for (const std::int64_t budget : {least, (least + most) / 2, most}) {
    CAPTURE(budget);
    const tq::ScheduleOptions options = options_of(budget);
    const tq::Schedule schedule = tq::make_schedule(capture, options, nothing);
    REQUIRE(schedule.codecs.size() == dims.size());
    std::int64_t bytes = 0;
    for (std::size_t i = 0; i < dims.size(); ++i) {
      const bool large = dims[i] == 96;
      bytes += 2 * (schedule.codecs[i].key == 0 ? (large ? 26 : 18) : (large ? 52 : 36));
      bytes += 2 * (schedule.codecs[i].value == 0 ? (large ? 26 : 18) : (large ? 60 : 40));
    }
    CHECK(schedule.bytes == bytes);
    CHECK(bytes <= budget);
    if (budget == least) CHECK(schedule.uniform.size() == 1);
    if (budget == most) {
      CHECK(schedule.uniform.size() == 4);
      for (const tq::CodecPair& pair : schedule.codecs) CHECK(pair == tq::CodecPair{1, 1});
    }
    // At either end the schedule is a uniform configuration, and measured as one.
    if (budget != (least + most) / 2) CHECK(schedule.held_out_harm == schedule.uniform.front().harm);
    CHECK(schedule.stands() == (schedule.held_out_harm <= schedule.uniform.front().harm));

    const tq::Artefact artefact = tq::schedule_artefact(capture.info(), options, schedule);
    CHECK_NOTHROW(tq::validate(artefact, "artefact"));
    CHECK(artefact.rotations.size() == 2);
    CHECK_FALSE(artefact.policy.has_value());
    const tq::CaptureReport report = tq::evaluate_capture(capture, artefact, nothing);
    CHECK(report.overall.bytes_per_token == bytes);
  }
  CHECK_THROWS_AS(tq::make_schedule(capture, options_of(least - 1), nothing), tq::UsageError);
}

TEST_CASE("the second half of the queries judges, whatever the first asks") {
  const tq::test::TemporaryFolder folder;
  write_mixed_capture(folder / "mixed.kv.h5", {64});
  tq::CaptureReader capture(folder / "mixed.kv.h5");
  const tq::ScheduleOptions options = options_of(1000);
  const auto measured = [&](tq::QueryParts parts) {
    const tq::Progress progress = nothing;
    tq::CandidateLayers layers(capture, options.candidates, parts, progress);
    return tq::measure_sensitivity(layers, tq::kQuantiseAll).front();
  };
  const tq::LayerSensitivity all = measured(tq::QueryParts::all);
  const tq::LayerSensitivity halves = measured(tq::QueryParts::fit_and_held_out);
  for (const auto side : {&tq::LayerSensitivity::keys, &tq::LayerSensitivity::values}) {
    for (std::size_t i = 0; i < 2; ++i) {
      REQUIRE((all.*side)[i].size() == 1);
      REQUIRE((halves.*side)[i].size() == 2);
      const double fit = (halves.*side)[i][tq::kFitPart].harm(),
                   held_out = (halves.*side)[i][tq::kHeldOutPart].harm();
      CHECK((all.*side)[i][0].harm() == doctest::Approx((fit + held_out) / 2).epsilon(1e-9));
      CHECK(fit != held_out);
    }
  }
}
