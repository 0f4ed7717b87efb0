#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "core/attention.h"
#include "tests/support/reference.h"
#include "tests/support/test_seed.h"

namespace ref = tq::reference;
using tq::SoftmaxStream;
using tq::test::normal_values;
using tq::test::test_random;

namespace {

struct Streamed {
  SoftmaxStream softmax;
  std::vector<double> weights;  // normalised
  std::vector<SoftmaxStream::Block> blocks;
};

// Feeds the scores in blocks of the given sizes, over and over, and rescales what earlier blocks left as a
// caller does.
Streamed stream(std::vector<float> scores, const std::vector<std::size_t>& sizes) {
  Streamed result;
  std::size_t turn = 0;
  for (std::size_t begin = 0; begin < scores.size(); ++turn) {
    const std::size_t count = std::min(sizes[turn % sizes.size()], scores.size() - begin);
    result.blocks.push_back(result.softmax.add(&scores[begin], count, begin));
    for (double& weight : result.weights) weight *= static_cast<double>(result.softmax.rescale());
    for (std::size_t i = begin; i < begin + count; ++i)
      result.weights.push_back(static_cast<double>(scores[i]));
    begin += count;
  }
  for (double& weight : result.weights) weight /= result.softmax.sum();
  return result;
}

double worst_difference(const std::vector<double>& a, const std::vector<double>& b) {
  double worst = 0;
  for (std::size_t i = 0; i < a.size(); ++i) worst = std::max(worst, std::fabs(a[i] - b[i]));
  return worst;
}

const std::vector<std::vector<std::size_t>> kBlockings{{10000}, {1}, {16}, {7, 100, 1, 33}, {64, 17}};

}  // namespace

TEST_CASE("dense scores") {
  tq::Random random = test_random(70);
  for (const std::size_t d : {4u, 40u, 64u, 1024u}) {
    for (const std::size_t rows : {0u, 1u, 16u, 17u, 1100u}) {
      if (d == 1024 && rows > 17) continue;
      CAPTURE(d);
      CAPTURE(rows);
      const std::vector<float> queries = normal_values(random, 9 * d), keys = normal_values(random, rows * d);
      std::vector<float> scores(9 * rows + 1, -7);
      tq::dense_scores(queries.data(), 9, keys.data(), rows, d, scores.data());
      CHECK(scores.back() == -7);
      double worst = 0;
      for (std::size_t q = 0; q < 9; ++q) {
        const ref::Vector query = ref::widen({&queries[q * d], d});
        for (std::size_t t = 0; t < rows; ++t) {
          const ref::Vector key = ref::widen({&keys[t * d], d});
          const double error = static_cast<double>(scores[q * rows + t]) - ref::dot(query, key);
          worst = std::max(worst, std::fabs(error) / (ref::norm(query) * ref::norm(key)));
        }
      }
      CHECK(worst < 2e-6);
    }
  }
}

TEST_CASE("weighted rows are added to what is there") {
  tq::Random random = test_random(71);
  for (const std::size_t d : {4u, 12u, 40u, 100u, 128u}) {
    for (const std::size_t count : {0u, 1u, 4u, 6u}) {
      CAPTURE(d);
      CAPTURE(count);
      constexpr std::size_t kRows = 50, kStride = 61;
      const std::vector<float> weights = normal_values(random, count * kStride + 1);
      const std::vector<float> values = normal_values(random, kRows * d);
      std::vector<float> out = normal_values(random, count * d + 1);
      const float guard = out.back();
      ref::Vector expected = ref::widen(out);
      for (std::size_t q = 0; q < count; ++q) {
        for (std::size_t t = 0; t < kRows; ++t) {
          for (std::size_t j = 0; j < d; ++j) {
            expected[q * d + j] +=
                static_cast<double>(weights[q * kStride + t]) * static_cast<double>(values[t * d + j]);
          }
        }
      }
      tq::accumulate_weighted_rows(weights.data(), count, kStride, values.data(), kRows, d, out.data());
      CHECK(ref::relative_error(ref::widen(out), expected) < 1e-5);
      CHECK(out.back() == guard);
    }
  }
}

TEST_CASE("error products") {
  tq::Random random = test_random(76);
  for (const std::size_t d : {16u, 40u, 128u}) {
    for (const std::size_t rows : {0u, 1u, 16u, 37u}) {
      CAPTURE(d);
      CAPTURE(rows);
      const std::vector<float> x = normal_values(random, rows * d), y = normal_values(random, rows * d);
      std::vector<tq::ErrorProducts> products(rows);
      tq::error_products(x.data(), y.data(), rows, d, products.data());
      for (std::size_t t = 0; t < rows; ++t) {
        const ref::Vector a = ref::widen({&x[t * d], d}), b = ref::widen({&y[t * d], d});
        const double size = ref::norm(a) * ref::norm(b),
                     difference = ref::relative_error(a, b) * ref::norm(b);
        CHECK(static_cast<double>(products[t].xx) == doctest::Approx(ref::dot(a, a)).epsilon(1e-6));
        CHECK(static_cast<double>(products[t].rr) == doctest::Approx(ref::dot(b, b)).epsilon(1e-6));
        CHECK(static_cast<double>(products[t].dd) == doctest::Approx(difference * difference).epsilon(1e-6));
        CHECK(std::fabs(static_cast<double>(products[t].xr) - ref::dot(a, b)) < 1e-6 * size);
      }
    }
  }
}

TEST_CASE("a streamed softmax agrees with float64") {
  tq::Random random = test_random(72);
  for (const double size : {0.1, 3.0, 30.0}) {
    for (const std::size_t rows : {1u, 5u, 16u, 1000u}) {
      for (const auto& blocking : kBlockings) {
        CAPTURE(size);
        CAPTURE(rows);
        CAPTURE(blocking.front());
        const std::vector<float> scores = normal_values(random, rows, size);
        const ref::Vector expected = ref::softmax(ref::widen(scores));
        const Streamed streamed = stream(scores, blocking);
        CHECK(worst_difference(streamed.weights, expected) < 1e-6);
        const auto top =
            static_cast<std::size_t>(std::max_element(scores.begin(), scores.end()) - scores.begin());
        CHECK(streamed.softmax.top() == top);
        CHECK(streamed.softmax.max() == scores[top]);
        CHECK(std::fabs(streamed.softmax.log_sum_exp() -
                        (static_cast<double>(scores[top]) - std::log(expected[top]))) < 1e-6);
      }
    }
  }
}

TEST_CASE("the divergence of two streams agrees with float64") {
  // KL(s || t) = sum of p (s - t) - lse(s) + lse(t), the first term gathered block by block.
  tq::Random random = test_random(73);
  for (const double size : {0.1, 3.0, 30.0}) {
    for (const auto& blocking : kBlockings) {
      CAPTURE(size);
      CAPTURE(blocking.front());
      constexpr std::size_t kRows = 900;
      const std::vector<float> s = normal_values(random, kRows, size);
      std::vector<float> t = normal_values(random, kRows, 0.1 * size);
      for (std::size_t i = 0; i < kRows; ++i) t[i] += s[i];
      SoftmaxStream exact, approximate;
      double difference = 0;
      std::size_t turn = 0;
      for (std::size_t begin = 0; begin < kRows; ++turn) {
        const std::size_t count = std::min(blocking[turn % blocking.size()], kRows - begin);
        std::vector<float> p(s.begin() + static_cast<std::ptrdiff_t>(begin),
                             s.begin() + static_cast<std::ptrdiff_t>(begin + count));
        std::vector<float> q(t.begin() + static_cast<std::ptrdiff_t>(begin),
                             t.begin() + static_cast<std::ptrdiff_t>(begin + count));
        exact.add(p.data(), count, begin);
        approximate.add(q.data(), count, begin);
        difference *= static_cast<double>(exact.rescale());
        difference += tq::score_products(p.data(), &s[begin], &t[begin], count).weighted_difference;
        begin += count;
      }
      const double kl = difference / exact.sum() - exact.log_sum_exp() + approximate.log_sum_exp();
      CHECK(std::fabs(kl - ref::kl_divergence(ref::widen(s), ref::widen(t))) < 2e-6 * (1 + size));
    }
  }
}

TEST_CASE("masked tokens have no weight, wherever they stand") {
  tq::Random random = test_random(74);
  constexpr std::size_t kRows = 300;
  for (const auto& blocking : kBlockings) {
    for (const std::size_t visible_from : {0u, 40u, 299u}) {
      CAPTURE(blocking.front());
      CAPTURE(visible_from);
      std::vector<float> scores = normal_values(random, kRows, 3);
      std::vector<double> visible;
      std::vector<std::size_t> places;
      for (std::size_t i = 0; i < kRows; ++i) {
        if (i != 299 && (i < visible_from || i % 7 == 3)) {
          scores[i] = tq::kMaskedScore;
        } else {
          visible.push_back(static_cast<double>(scores[i]));
          places.push_back(i);
        }
      }
      const Streamed streamed = stream(scores, blocking);
      ref::Vector expected(kRows);
      const ref::Vector weights = ref::softmax(visible);
      for (std::size_t k = 0; k < places.size(); ++k) expected[places[k]] = weights[k];
      CHECK(worst_difference(streamed.weights, expected) < 1e-6);
      for (std::size_t i = 0; i < kRows; ++i) {
        if (scores[i] == tq::kMaskedScore) REQUIRE(streamed.weights[i] == 0);
      }
      const auto top = std::max_element(visible.begin(), visible.end()) - visible.begin();
      CHECK(streamed.softmax.top() == places[static_cast<std::size_t>(top)]);
    }
  }
}

TEST_CASE("nothing visible has no weight") {
  SoftmaxStream softmax;
  CHECK(softmax.sum() == 0);
  std::vector<float> scores(20, tq::kMaskedScore);
  const SoftmaxStream::Block nothing = softmax.add(scores.data(), 20, 0);
  CHECK(nothing.max == tq::kMaskedScore);
  CHECK(nothing.sum == 0);
  CHECK(softmax.sum() == 0);
  CHECK(softmax.rescale() == 1);
  CHECK(scores == std::vector<float>(20, 0.0f));
  softmax.add(scores.data(), 0, 20);
  CHECK(softmax.sum() == 0);
  std::vector<float> one{3.0f};
  softmax.add(one.data(), 1, 20);
  CHECK(one[0] == 1);
  CHECK(softmax.sum() == 1);
  CHECK(softmax.top() == 20);
  CHECK(softmax.log_sum_exp() == 3);
  // Masked tokens after it change nothing.
  scores.assign(20, tq::kMaskedScore);
  softmax.add(scores.data(), 20, 21);
  CHECK(softmax.sum() == 1);
  CHECK(softmax.rescale() == 1);
  CHECK(scores == std::vector<float>(20, 0.0f));
}

TEST_CASE("a stream of another stream's blocks") {
  tq::Random random = test_random(75);
  for (const auto& blocking : kBlockings) {
    CAPTURE(blocking.front());
    const std::vector<float> scores = normal_values(random, 500, 10);
    const Streamed whole = stream(scores, blocking);
    // Every other block, as a stream that sees only some of the tokens does.
    SoftmaxStream part;
    ref::Vector weights, visible;
    std::size_t turn = 0, begin = 0;
    for (const SoftmaxStream::Block& block : whole.blocks) {
      const std::size_t count = std::min(blocking[turn % blocking.size()], scores.size() - begin);
      if (turn % 2 == 0) {
        const double factor = static_cast<double>(part.add(block));
        for (double& weight : weights) weight *= static_cast<double>(part.rescale());
        for (std::size_t i = begin; i < begin + count; ++i) {
          const double score = static_cast<double>(scores[i]);
          weights.push_back(factor * std::exp(score - static_cast<double>(block.reference)));
          visible.push_back(score);
        }
      }
      ++turn;
      begin += count;
    }
    for (double& weight : weights) weight /= part.sum();
    CHECK(worst_difference(weights, ref::softmax(visible)) < 1e-6);
    CHECK(part.max() == static_cast<float>(*std::max_element(visible.begin(), visible.end())));
    CHECK(part.add(SoftmaxStream::Block()) == 1);
    CHECK(part.rescale() == 1);
  }
}

TEST_CASE("a block whose weights vanished beside another token's is not added") {
  for (const float far : {30.0f, 200.0f, 1e9f}) {
    CAPTURE(far);
    std::vector<float> top{far}, low{0, -1}, masked{tq::kMaskedScore};
    SoftmaxStream whole, part;
    whole.add(top.data(), 1, 0);
    const SoftmaxStream::Block block = whole.add(low.data(), 2, 1), unseen = whole.add(masked.data(), 1, 3);
    CHECK(part.can_add(block) == (far < 40));
    CHECK(part.can_add(unseen));
    CHECK(SoftmaxStream(whole).can_add(block));
    if (!part.can_add(block)) continue;
    part.add(block);
    CHECK(part.log_sum_exp() == doctest::Approx(std::log(1 + std::exp(-1.0))).epsilon(1e-6));
  }
}

TEST_CASE("scores far apart neither overflow nor lose the top token") {
  const Streamed streamed = stream({-500, 3e4f, 2e4f, 0, -3e38f}, {1});
  CHECK(streamed.softmax.top() == 1);
  CHECK(streamed.weights == std::vector<double>{0, 1, 0, 0, 0});
  CHECK(streamed.softmax.log_sum_exp() == 3e4);
}

TEST_CASE("the exponential is accurate over its range") {
  // One block whose largest score is 0 turns every other score x into exp(x).
  std::vector<float> scores{0};
  for (int i = 1; i <= 4000; ++i) scores.push_back(-86.9f * static_cast<float>(i) / 4000);
  std::vector<float> weights = scores;
  SoftmaxStream().add(weights.data(), weights.size(), 0);
  double worst = 0;
  for (std::size_t i = 0; i < scores.size(); ++i) {
    const double exact = std::exp(static_cast<double>(scores[i]));
    worst = std::max(worst, std::fabs(static_cast<double>(weights[i]) / exact - 1));
  }
  CHECK(worst < 2.5e-7);
}
