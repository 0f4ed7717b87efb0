#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <vector>

#include "calibration/evaluation.h"
#include "tests/support/reference.h"
#include "tests/support/test_seed.h"

// Tokens that a cache's policy keeps exact, against attention in float64 over rows that are put together one
// by one.

namespace {

namespace ref = tq::reference;
using tq::CachePolicy;

constexpr int kDim = 16, kHeads = 2, kQueryHeads = 4;
constexpr std::size_t kD = kDim;

// As lossy as a codec of few bits.
float spoiled(float x) { return 0.75f * std::round(x / 0.75f); }

class SpoiledRows : public tq::StoredKeys {
 public:
  SpoiledRows(const float* keys, std::size_t rows) : rows_(keys, keys + rows * kD) {
    for (float& x : rows_) x = spoiled(x);
  }
  void decode(float* out) const override { std::copy(rows_.begin(), rows_.end(), out); }
  void scores(const float* queries, std::size_t count, float* out) const override {
    const std::size_t rows = rows_.size() / kD;
    for (std::size_t q = 0; q < count; ++q) {
      for (std::size_t t = 0; t < rows; ++t) {
        double sum = 0;
        for (std::size_t j = 0; j < kD; ++j)
          sum += static_cast<double>(queries[q * kD + j]) * static_cast<double>(rows_[t * kD + j]);
        out[q * rows + t] = static_cast<float>(sum);
      }
    }
  }

 private:
  std::vector<float> rows_;
};

class SpoiledKeys : public tq::KeyBackend {
  std::unique_ptr<tq::StoredKeys> encode(const float* keys, std::size_t rows) const override {
    return std::make_unique<SpoiledRows>(keys, rows);
  }
};

class SpoiledValues : public tq::ValueBackend {
  void encode_decode(const float* values, std::size_t rows, float* out) const override {
    std::transform(values, values + rows * kD, out, spoiled);
  }
};

// Two sequences, cut into blocks of which some belong to part 1; queries of both.
struct Sample {
  std::vector<tq::TokenBlock> blocks;
  std::vector<std::size_t> parts;
  tq::LayerQueries queries;
};

Sample random_sample(tq::Random& random) {
  Sample sample;
  std::size_t token = 0;
  for (int sequence = 0; sequence < 2; ++sequence) {
    std::int32_t position = sequence == 0 ? 0 : 3;  // the second capture begins within its sequence
    for (int block = 0; block < 4; ++block) {
      tq::TokenBlock tokens;
      tokens.begin = token;
      tokens.count = 1 + random.below(20);
      token += tokens.count;
      tokens.k = tq::test::normal_values(random, kHeads * tokens.count * kD);
      tokens.v = tq::test::normal_values(random, kHeads * tokens.count * kD);
      for (std::size_t t = 0; t < tokens.count; ++t) tokens.positions.push_back(position++);
      tokens.sequence_ids.assign(tokens.count, sequence);
      sample.blocks.push_back(std::move(tokens));
      sample.parts.push_back(random.below(2));
    }
    for (int i = 0; i < 6; ++i) {
      sample.queries.positions.push_back(
          static_cast<std::int32_t>(random.below(static_cast<std::uint32_t>(position))));
      sample.queries.sequence_ids.push_back(sequence);
    }
  }
  sample.queries.positions_count = sample.queries.positions.size();
  sample.queries.q = tq::test::normal_values(random, kQueryHeads * sample.queries.positions_count * kD);
  return sample;
}

struct Expected {
  double kl = 0, top1 = 0, output_error = 0;  // sums over judged queries
  double squared_error = 0, squares = 0;      // of scores of judged tokens
  int queries = 0;
};

Expected expected_of(const Sample& sample, std::size_t part, bool keys, bool values, CachePolicy policy,
                     double scale) {
  Expected sums;
  const std::size_t rows = sample.queries.positions_count;
  for (std::size_t h = 0; h < kQueryHeads; ++h) {
    for (std::size_t i = 0; i < rows; ++i) {
      const std::int32_t at = sample.queries.positions[i];
      std::vector<ref::Vector> k, stored_k, v, stored_v;
      std::vector<bool> judged;
      for (std::size_t b = 0; b < sample.blocks.size(); ++b) {
        const tq::TokenBlock& block = sample.blocks[b];
        for (std::size_t t = 0; t < block.count; ++t) {
          const std::int32_t position = block.positions[t];
          if (block.sequence_ids[t] != sample.queries.sequence_ids[i] || position > at) continue;
          judged.push_back(sample.parts[b] == part);
          const std::size_t row = (h / (kQueryHeads / kHeads) * block.count + t) * kD;
          const bool exact =
              sample.parts[b] != part || position < policy.sinks || at - position < policy.recent;
          const auto stored = [&](const std::vector<float>& from, bool quantised) {
            ref::Vector x = ref::widen({&from[row], kD});
            if (!quantised || exact) return x;
            for (std::size_t j = 0; j < kD; ++j) x[j] = static_cast<double>(spoiled(from[row + j]));
            return x;
          };
          k.push_back(stored(block.k, false));
          stored_k.push_back(stored(block.k, keys));
          v.push_back(stored(block.v, false));
          stored_v.push_back(stored(block.v, values));
        }
      }
      if (std::find(judged.begin(), judged.end(), true) == judged.end()) continue;
      ++sums.queries;
      const ref::Vector q = ref::widen({&sample.queries.q[(h * rows + i) * kD], kD});
      ref::Vector s, stored_s;
      for (std::size_t t = 0; t < k.size(); ++t) {
        s.push_back(scale * ref::dot(q, k[t]));
        stored_s.push_back(scale * ref::dot(q, stored_k[t]));
        const double difference = s.back() - stored_s.back();
        sums.squared_error += difference * difference;
        sums.squares += judged[t] ? s[t] * s[t] : 0;
      }
      sums.kl += ref::kl_divergence(s, stored_s);
      const auto top = [](const ref::Vector& of) {
        return std::max_element(of.begin(), of.end()) - of.begin();
      };
      sums.top1 += top(s) == top(stored_s) ? 1 : 0;
      const auto output = [](const ref::Vector& weights, const std::vector<ref::Vector>& rows_of) {
        ref::Vector out(kD, 0);
        for (std::size_t t = 0; t < rows_of.size(); ++t) {
          for (std::size_t j = 0; j < kD; ++j) out[j] += weights[t] * rows_of[t][j];
        }
        return out;
      };
      const double error =
          ref::relative_error(output(ref::softmax(stored_s), stored_v), output(ref::softmax(s), v));
      sums.output_error += error * error;
    }
  }
  return sums;
}

}  // namespace

TEST_CASE("what a policy keeps exact is exact in scores and outputs") {
  tq::Random random = tq::test::test_random(941);
  constexpr double kScale = 0.7;
  for (int round = 0; round < 12; ++round) {
    const Sample sample = random_sample(random);
    const CachePolicy policy{.recent = static_cast<int>(random.below(4) * random.below(20)),
                             .sinks = static_cast<int>(random.below(3) * random.below(8)),
                             .flush_block = 1};
    CAPTURE(round);
    CAPTURE(policy.recent);
    CAPTURE(policy.sinks);
    const auto keys = std::make_shared<SpoiledKeys>();
    const auto values = std::make_shared<SpoiledValues>();
    tq::LayerEvaluation evaluation(
        kDim, kHeads, kQueryHeads, kScale, sample.queries,
        {{"keys", true, {keys}, {}}, {"values", true, {}, {values}}, {"both", true, {keys}, {values}}}, 2,
        policy);
    for (std::size_t b = 0; b < sample.blocks.size(); ++b) evaluation.add(sample.blocks[b], sample.parts[b]);
    for (std::size_t contender = 0; contender < 3; ++contender) {
      for (std::size_t part = 0; part < 2; ++part) {
        CAPTURE(contender);
        CAPTURE(part);
        const Expected sums = expected_of(sample, part, contender != 1, contender != 0, policy, kScale);
        const tq::LayerMetrics metrics = evaluation.metrics(contender, part);
        REQUIRE(metrics.output_error.has_value() == (sums.queries > 0));
        if (sums.queries == 0) continue;
        const auto near = [](double x) { return doctest::Approx(x).epsilon(2e-4).scale(1e-3); };
        CHECK(*metrics.output_error == near(sums.output_error / sums.queries));
        if (contender == 1) continue;
        CHECK(*metrics.softmax_kl == near(sums.kl / sums.queries));
        CHECK(*metrics.top1_agreement == doctest::Approx(sums.top1 / sums.queries));
        CHECK(*metrics.inner_product_error == near(std::sqrt(sums.squared_error / sums.squares)));
      }
    }
  }
}

TEST_CASE("a window over everything leaves no harm, and none is the same as no policy") {
  tq::Random random = tq::test::test_random(942);
  const Sample sample = random_sample(random);
  const auto measured = [&](auto... policy) {
    tq::LayerEvaluation evaluation(
        kDim, kHeads, kQueryHeads, 0.5, sample.queries,
        {{"both", true, {std::make_shared<SpoiledKeys>()}, {std::make_shared<SpoiledValues>()}}}, 1,
        policy...);
    for (const tq::TokenBlock& block : sample.blocks) evaluation.add(block, 0);
    return evaluation.metrics(0, 0);
  };
  const tq::LayerMetrics all_exact = measured(CachePolicy{.recent = 1000, .sinks = 0, .flush_block = 1});
  CHECK(*all_exact.output_error < 1e-10);
  CHECK(*all_exact.softmax_kl == doctest::Approx(0).scale(1e-6));
  CHECK(*all_exact.top1_agreement == 1);
  CHECK(*measured().output_error == *measured(tq::kQuantiseAll).output_error);
  CHECK(*measured().output_error > 1e-3);
}
