#include <doctest/doctest.h>

#include <string>
#include <vector>

#include "calibration/artefact/layer_message.h"
#include "calibration/coordinate_histogram.h"
#include "calibration/process_group.h"
#include "calibration/residual_statistics.h"
#include "core/message.h"
#include "tests/calibration/artefact/artefact_samples.h"
#include "tests/support/test_seed.h"

// What processes tell each other; that they agree is tested under mpirun, in tests/experiments/test_mpi.py.

namespace {

template <typename Statistic>
Statistic sent(const Statistic& statistic, const Statistic& like) {
  tq::MessageWriter writer;
  writer(statistic);
  tq::MessageReader reader(writer.bytes());
  Statistic received = like;
  reader(received);
  CHECK(reader.empty());
  return received;
}

}  // namespace

TEST_CASE("shares are disjoint, in order, and all of it") {
  for (const std::size_t items : {0u, 1u, 4u, 7u, 100u}) {
    for (int size = 1; size <= 9; ++size) {
      std::size_t next = 0;
      for (int rank = 0; rank < size; ++rank) {
        const auto [first, last] = tq::share_of(items, rank, size);
        CHECK(first == next);
        CHECK(last - first <= items / static_cast<std::size_t>(size) + 1);
        next = last;
      }
      CHECK(next == items);
    }
  }
}

TEST_CASE("a histogram that was sent is the same") {
  tq::Random random = tq::test::test_random(71);
  const std::vector<float> rows = tq::test::normal_values(random, 100 * 64, 0.1), norms(100, 1.0f);
  tq::CoordinateHistogram histogram(64);
  histogram.add(rows.data(), norms.data(), 100);
  const tq::CoordinateHistogram received = sent(histogram, tq::CoordinateHistogram(128));
  CHECK(received.head_dim() == 64);
  CHECK(received.counts() == histogram.counts());
}

TEST_CASE("residual statistics that were split and sent are those of one") {
  tq::Random random = tq::test::test_random(72);
  // More rows than the sample holds.
  const std::size_t rows = 3 * tq::ResidualStatistics::kSample;
  const std::vector<float> values = tq::test::normal_values(random, rows, 1);
  tq::ResidualStatistics all, merged;
  std::vector<tq::ResidualStatistics> parts(3);
  for (std::size_t i = 0; i < rows; ++i) {
    tq::ResidualProducts products{};
    products.norm = 1 + values[i] * values[i];
    products.residual_norm = 0.5f;
    products.rg = values[i];
    products.gg = 1;
    all.add(products, i);
    all.add_scores(static_cast<double>(values[i]), 1e-30);
    parts[i % 3].add(products, i);
    parts[i % 3].add_scores(static_cast<double>(values[i]), 1e-30);
  }
  for (const tq::ResidualStatistics& part : parts) merged.merge(sent(part, {}));
  CHECK(merged.rows() == all.rows());
  CHECK(merged.projected() == all.projected());
  CHECK(merged.energy() == all.energy());
  CHECK(merged.score_projected() == all.score_projected());
  CHECK(merged.score_energy() == all.score_energy());
  const auto ours = merged.sample(), theirs = all.sample();
  REQUIRE(ours.size() == tq::ResidualStatistics::kSample);
  for (std::size_t i = 0; i < ours.size(); ++i) CHECK(ours[i].rg == theirs[i].rg);
}

TEST_CASE("layers that were sent are the same, and a message that ends early is refused") {
  const tq::Artefact artefact = tq::test::random_artefact(tq::test::test_seed());
  tq::MessageWriter writer;
  for (const tq::LayerArtefact& layer : artefact.layers) writer(layer);
  tq::MessageReader reader(writer.bytes());
  for (const tq::LayerArtefact& layer : artefact.layers) {
    tq::LayerArtefact received;
    reader(received);
    CHECK(received.head_dim == layer.head_dim);
    CHECK(received.num_kv_heads == layer.num_kv_heads);
    CHECK(received.key == layer.key);
    CHECK(received.value == layer.value);
    CHECK(received.key_tables == layer.key_tables);
    CHECK(received.value_tables == layer.value_tables);
    CHECK(received.key_gate == layer.key_gate);
    CHECK(received.value_gate == layer.value_gate);
  }
  CHECK(reader.empty());
  tq::MessageReader cut(std::string_view(writer.bytes()).substr(0, 40));
  tq::LayerArtefact received;
  CHECK_THROWS_AS(cut(received), tq::MessageError);
}
