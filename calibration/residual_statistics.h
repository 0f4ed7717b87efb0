#pragma once

#include <cstdint>
#include <vector>

#include "calibration/exact_sum.h"
#include "core/key_codec.h"

namespace tq {

// What alpha is fitted to. All parts merge exactly in any order: the sums have no rounding, and the sample of
// rows is the kSample rows of smallest hash, whoever saw them.
class ResidualStatistics {
 public:
  static constexpr std::size_t kSample = 32768;

  // `row` identifies the vector in its layer (kv head and token), so that the sample does not depend on the
  // order.
  void add(const ResidualProducts& products, std::uint64_t row);
  // Sums over queries of a b and b^2 for one key: a = <q,r>, b = <q,r^> at alpha = 1.
  void add_scores(double ab, double bb);
  void merge(const ResidualStatistics& other);

  // To and from other processes (core/message.h).
  template <typename Archive>
  friend void fields(Archive& archive, ResidualStatistics& statistics) {
    archive(statistics.rows_, statistics.projected_, statistics.energy_, statistics.score_projected_,
            statistics.score_energy_, statistics.sample_);
  }

  bool empty() const { return rows_ == 0; }
  std::uint64_t rows() const { return rows_; }
  // sum ||r|| <r,g>, sum ||r||^2 ||g||^2.
  double projected() const { return projected_.value(); }
  double energy() const { return energy_.value(); }
  double score_projected() const { return score_projected_.value(); }
  double score_energy() const { return score_energy_.value(); }

  // The sampled rows in the order of their hashes.
  std::vector<ResidualProducts> sample() const;

 private:
  struct Sampled {
    std::uint64_t hash;
    ResidualProducts products;
  };
  void shrink_sample();

  std::uint64_t rows_ = 0;
  ExactSum projected_, energy_, score_projected_, score_energy_;
  std::vector<Sampled> sample_;
};

}  // namespace tq
