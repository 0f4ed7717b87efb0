#pragma once

#include <cstddef>
#include <span>
#include <vector>

namespace tq::bench {

// softmax(scale q k) v in float64, a block of tokens at a time, for queries that share keys and values.
class Float64Attention {
 public:
  // queries: count x d.
  Float64Attention(std::span<const float> queries, std::size_t d, double softmax_scale);

  // k, v: rows x d.
  void add(const float* k, const float* v, std::size_t rows);
  // As if what the other one was given had come here.
  void merge(const Float64Attention& other);
  // count x d.
  std::vector<double> result() const;

 private:
  void rescale(std::size_t query, double maximum);

  std::size_t d_, count_;
  // d x count, scaled: the loop over queries is the inner one, so that it is vectorised with every sum in
  // order.
  std::vector<double> queries_;
  std::vector<double> scores_, maximum_, sum_, out_;  // out_: count x d
};

}  // namespace tq::bench
