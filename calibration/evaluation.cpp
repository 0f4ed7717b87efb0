#include "calibration/evaluation.h"

#include <algorithm>
#include <cmath>
#include <exception>

#include "core/message.h"
#include "core/tile.h"

namespace tq {
namespace {

// Rows of scores held at a time: with a thousand tokens, the four arrays of a chunk stay in a core's cache.
constexpr std::size_t kQueryChunk = 64;

template <typename Codec>
const Codec* codec_of(const std::vector<std::shared_ptr<const Codec>>& codecs, std::size_t head) {
  if (codecs.empty()) return nullptr;
  return codecs[codecs.size() == 1 ? 0 : head].get();
}

double sum(const std::vector<double>& samples) {
  double total = 0;
  for (const double sample : samples) total += sample;
  return total;
}
double mean(const std::vector<double>& samples) { return sum(samples) / static_cast<double>(samples.size()); }

// Of the mean of two samples or more.
double standard_error(const std::vector<double>& samples) {
  const double centre = mean(samples), n = static_cast<double>(samples.size());
  double squares = 0;
  for (const double sample : samples) squares += (sample - centre) * (sample - centre);
  return std::sqrt(squares / (n - 1) / n);
}

// out[q] = out[q] * rescale[q] + gain[q] * addend[q], vectors of d.
void rescale_and_add(const std::vector<float>& rescale, const std::vector<float>& gain, const float* addend,
                     std::size_t d, float* out) {
  for (std::size_t q = 0; q < rescale.size(); ++q) {
    for (std::size_t j = 0; j < d; ++j)
      out[q * d + j] = out[q * d + j] * rescale[q] + gain[q] * addend[q * d + j];
  }
}

// sum over t of weights[q][t] values[t], for every query.
std::vector<float> weighted_values(const std::vector<float>& weights, std::size_t count, std::size_t tokens,
                                   const float* values, std::size_t d) {
  std::vector<float> out(count * d, 0.0f);
  for (std::size_t q = 0; q < count; q += 8) {
    accumulate_weighted_rows(weights.data() + q * tokens, std::min<std::size_t>(8, count - q), tokens, values,
                             tokens, d, out.data() + q * d);
  }
  return out;
}

}  // namespace

void LayerEvaluation::VectorErrors::add(const float* x, const float* reconstruction, std::size_t count,
                                        std::size_t d) {
  std::vector<ErrorProducts> products(count);
  error_products(x, reconstruction, count, d, products.data());
  for (const ErrorProducts& p : products) {
    if (!(p.xx > 0)) continue;
    ++rows;
    const double mse = static_cast<double>(p.dd) / static_cast<double>(p.xx);
    relative_mse.add(mse);
    relative_mse_squares += mse * mse;
    const double norms = std::sqrt(static_cast<double>(p.xx) * static_cast<double>(p.rr));
    const double cosine_of_row = norms > 0 ? static_cast<double>(p.xr) / norms : 0;
    cosine.add(cosine_of_row);
    cosine_gap_squares += (1 - cosine_of_row) * (1 - cosine_of_row);
  }
}

void LayerEvaluation::VectorErrors::merge(const VectorErrors& other) {
  rows += other.rows;
  relative_mse.merge(other.relative_mse);
  cosine.merge(other.cosine);
  relative_mse_squares += other.relative_mse_squares;
  cosine_gap_squares += other.cosine_gap_squares;
}

LayerEvaluation::LayerEvaluation(int head_dim, int num_kv_heads, int num_q_heads, double softmax_scale,
                                 const LayerQueries& queries, std::vector<Contender> contenders,
                                 std::size_t parts, const CachePolicy& policy, const ProcessGroup& team)
    : d_(static_cast<std::size_t>(head_dim)),
      kv_heads_(static_cast<std::size_t>(num_kv_heads)),
      group_(static_cast<std::size_t>(num_q_heads / num_kv_heads)),
      queries_(queries),
      scaled_queries_(queries.q),
      contenders_(std::move(contenders)),
      parts_(parts),
      policy_(policy),
      team_(team),
      measure_output_(std::any_of(contenders_.begin(), contenders_.end(),
                                  [](const Contender& contender) { return contender.measure_output; })),
      states_(contenders_.size() * parts) {
  validate(policy);
  for (float& x : scaled_queries_) x *= static_cast<float>(softmax_scale);
  const std::size_t rows = kv_heads_ * group_ * queries.positions_count;
  exact_.resize(rows);
  if (measure_output_) exact_output_.resize(rows * d_);
  for (std::size_t i = 0; i < states_.size(); ++i) {
    states_[i].keys.resize(kv_heads_);
    states_[i].values.resize(kv_heads_);
    states_[i].queries.resize(rows);
    if (contenders_[i / parts_].measure_output) states_[i].output.resize(rows * d_);
  }
}

void LayerEvaluation::add(const TokenBlock& block, std::size_t part) {
  // One region a block of tokens. Inside a head everything is too short to be worth waking threads for: on
  // sixteen cores that made a small capture ten times slower.
  std::exception_ptr failure;  // of a backend: out of the region before it goes on
  const std::pair<std::size_t, std::size_t> own = share_of(kv_heads_, team_.rank(), team_.size());
#pragma omp parallel for schedule(dynamic) num_threads(team_size(own.second - own.first))
  for (std::size_t head = own.first; head < own.second; ++head) {
    try {
      add_head(block, part, head);
    } catch (...) {
#pragma omp critical
      failure = std::current_exception();
    }
  }
  if (failure) std::rethrow_exception(failure);
}

// What one head's block and one chunk of its queries share between contenders.
struct LayerEvaluation::HeadWork {
  struct Quantised {
    std::unique_ptr<StoredKeys> keys;  // null: keys stay exact
    std::vector<float> values;         // decoded; empty: values stay exact
  };
  std::size_t head, tokens, first_token;
  const float* keys;
  const float* values;
  std::vector<Quantised> quantised;  // one a contender
  std::vector<std::uint8_t> hidden;  // [positions][tokens]
  std::vector<std::uint8_t> exact;   // the same: the policy keeps the token exact; empty: none of the block
  std::vector<std::size_t> visible;  // [positions]

  std::size_t first_query = 0, count = 0,
              row = 0;                       // the chunk: queries of the head; `row` counts over all heads
  std::vector<float> scores;                 // [count][tokens], masked
  std::vector<float> weights;                // exp(score - running maximum)
  std::vector<SoftmaxStream::Block> blocks;  // [count]
  std::vector<float> output;                 // [count][d], this block's share
};

void LayerEvaluation::add_head(const TokenBlock& block, std::size_t part, std::size_t head) {
  const std::size_t tokens = block.count, positions = queries_.positions_count;
  const std::size_t head_queries = group_ * positions;
  HeadWork work;
  work.head = head;
  work.tokens = tokens;
  work.first_token = block.begin;
  work.keys = block.k.empty() ? nullptr : block.k.data() + head * tokens * d_;
  work.values = block.v.empty() ? nullptr : block.v.data() + head * tokens * d_;
  work.quantised.resize(contenders_.size());
  std::vector<float> decoded(tokens * d_);
  for (std::size_t c = 0; c < contenders_.size(); ++c) {
    PartState& state = states_[c * parts_ + part];
    HeadWork::Quantised& quantised = work.quantised[c];
    if (const KeyBackend* codec = codec_of(contenders_[c].keys, head);
        codec != nullptr && work.keys != nullptr) {
      quantised.keys = codec->encode(work.keys, tokens);
      quantised.keys->decode(decoded.data());
      state.keys[head].add(work.keys, decoded.data(), tokens, d_);
    }
    if (const ValueBackend* codec = codec_of(contenders_[c].values, head);
        codec != nullptr && work.values != nullptr) {
      quantised.values.resize(tokens * d_);
      codec->encode_decode(work.values, tokens, quantised.values.data());
      state.values[head].add(work.values, quantised.values.data(), tokens, d_);
    }
  }
  if (work.keys == nullptr || head_queries == 0) return;

  look(block, work);
  if (std::all_of(work.visible.begin(), work.visible.end(), [](std::size_t n) { return n == 0; })) return;

  for (std::size_t first = 0; first < head_queries; first += kQueryChunk) {
    work.first_query = first;
    work.count = std::min(kQueryChunk, head_queries - first);
    work.row = head * head_queries + first;
    work.scores.resize(work.count * tokens);
    dense_scores(scaled_queries_.data() + work.row * d_, work.count, work.keys, tokens, d_,
                 work.scores.data());
    mask(work, work.scores);
    work.weights = work.scores;
    work.blocks.resize(work.count);
    for (std::size_t q = 0; q < work.count; ++q) {
      work.blocks[q] = exact_[work.row + q].add(work.weights.data() + q * tokens, tokens, work.first_token);
    }
    if (measure_output_ && work.values != nullptr) {
      work.output = weighted_values(work.weights, work.count, tokens, work.values, d_);
      std::vector<float> rescale(work.count);
      for (std::size_t q = 0; q < work.count; ++q) rescale[q] = exact_[work.row + q].rescale();
      rescale_and_add(rescale, std::vector<float>(work.count, 1.0f), work.output.data(), d_,
                      exact_output_.data() + work.row * d_);
    }
    for (std::size_t c = 0; c < contenders_.size(); ++c) add_scores(work, c, part);
  }
}

// Which tokens each query sees, and which of those are quantised for it.
void LayerEvaluation::look(const TokenBlock& block, HeadWork& work) const {
  const std::size_t tokens = block.count, positions = queries_.positions_count;
  work.hidden.resize(positions * tokens);
  work.visible.assign(positions, 0);
  const auto index = [](std::int32_t position) {
    return static_cast<std::size_t>(std::max(position, std::int32_t{0}));
  };
  std::vector<std::uint8_t> exact(positions * tokens, 0);
  bool any_exact = false;
  for (std::size_t i = 0; i < positions; ++i) {
    // The cache holds the query's own token when it attends.
    const TokenCounts held = token_counts(policy_, index(queries_.positions[i]) + 1);
    for (std::size_t t = 0; t < tokens; ++t) {
      const bool sees =
          block.sequence_ids[t] == queries_.sequence_ids[i] && block.positions[t] <= queries_.positions[i];
      work.hidden[i * tokens + t] = sees ? 0 : 1;
      work.visible[i] += sees ? 1 : 0;
      const std::size_t position = index(block.positions[t]);
      if (sees && (position < held.sinks || position >= held.sinks + held.quantised)) {
        exact[i * tokens + t] = 1;
        any_exact = true;
      }
    }
  }
  if (any_exact) work.exact = std::move(exact);
}

// Scores that a query must not see become kMaskedScore.
void LayerEvaluation::mask(const HeadWork& work, std::vector<float>& scores) const {
  for (std::size_t q = 0; q < work.count; ++q) {
    const std::uint8_t* hidden =
        work.hidden.data() + (work.first_query + q) % queries_.positions_count * work.tokens;
    float* row = scores.data() + q * work.tokens;
    for (std::size_t t = 0; t < work.tokens; ++t) row[t] = hidden[t] != 0 ? kMaskedScore : row[t];
  }
}

// Scores of tokens that are exact for a query become the exact ones.
void LayerEvaluation::restore_exact(const HeadWork& work, std::vector<float>& scores) const {
  if (work.exact.empty()) return;
  for (std::size_t q = 0; q < work.count; ++q) {
    const std::uint8_t* exact =
        work.exact.data() + (work.first_query + q) % queries_.positions_count * work.tokens;
    for (std::size_t t = q * work.tokens, i = 0; i < work.tokens; ++t, ++i) {
      scores[t] = exact[i] != 0 ? work.scores[t] : scores[t];
    }
  }
}

// sum over t of weights[q][t] values[t], the values of tokens that are not exact for the query `quantised`.
std::vector<float> LayerEvaluation::mixed_output(const HeadWork& work, const std::vector<float>& weights,
                                                 const std::vector<float>& quantised) const {
  if (work.exact.empty()) return weighted_values(weights, work.count, work.tokens, quantised.data(), d_);
  std::vector<float> on_exact(weights.size(), 0.0f), on_quantised = weights;
  for (std::size_t q = 0; q < work.count; ++q) {
    const std::uint8_t* exact =
        work.exact.data() + (work.first_query + q) % queries_.positions_count * work.tokens;
    for (std::size_t t = q * work.tokens, i = 0; i < work.tokens; ++t, ++i) {
      if (exact[i] != 0) std::swap(on_exact[t], on_quantised[t]);
    }
  }
  std::vector<float> output = weighted_values(on_quantised, work.count, work.tokens, quantised.data(), d_);
  const std::vector<float> rest = weighted_values(on_exact, work.count, work.tokens, work.values, d_);
  for (std::size_t j = 0; j < output.size(); ++j) output[j] += rest[j];
  return output;
}

void LayerEvaluation::add_scores(HeadWork& work, std::size_t contender, std::size_t part) {
  const HeadWork::Quantised& quantised = work.quantised[contender];
  const std::size_t tokens = work.tokens;
  const bool outputs = contenders_[contender].measure_output && work.values != nullptr;
  std::vector<float> scores, weights, output;
  const bool quantised_keys = quantised.keys != nullptr;
  if (quantised_keys) {
    scores.resize(work.count * tokens);
    quantised.keys->scores(scaled_queries_.data() + work.row * d_, work.count, scores.data());
    mask(work, scores);
    restore_exact(work, scores);
    weights = scores;
  }
  std::vector<float> rescale(work.count), gain(work.count);
  for (std::size_t p = 0; p < parts_; ++p) {
    PartState& state = states_[contender * parts_ + p];
    const bool requantised = p == part && quantised_keys;
    bool shared = true;
    for (std::size_t q = 0; q < work.count; ++q)
      shared = shared && state.queries[work.row + q].softmax.can_add(work.blocks[q]);
    std::vector<float> reweighted;
    if (!requantised && !shared) reweighted = work.scores;
    for (std::size_t q = 0; q < work.count; ++q) {
      QueryState& query = state.queries[work.row + q];
      query.difference *= static_cast<double>(exact_[work.row + q].rescale());
      const std::size_t visible = work.visible[(work.first_query + q) % queries_.positions_count];
      if (p == part && visible > 0) query.judged = true;
      if (!reweighted.empty()) {
        gain[q] = 1;
        query.softmax.add(reweighted.data() + q * tokens, tokens, work.first_token);
      } else if (!requantised) {
        gain[q] = query.softmax.add(work.blocks[q]);
      } else {
        gain[q] = 1;
        query.softmax.add(weights.data() + q * tokens, tokens, work.first_token);
        const float* s = work.scores.data() + q * tokens;
        const float* t = scores.data() + q * tokens;
        const ScoreProducts products = score_products(work.weights.data() + q * tokens, s, t, tokens);
        query.difference += products.weighted_difference;
        query.cross += products.ab;
        query.exact_square += products.aa;
        query.difference_square += products.dd;
      }
      rescale[q] = query.softmax.rescale();
    }
    if (!outputs) continue;
    const bool exact_values = p != part || quantised.values.empty();
    const float* addend = work.output.data();
    if (requantised || !reweighted.empty() || !exact_values) {
      const std::vector<float>& own = requantised ? weights : !reweighted.empty() ? reweighted : work.weights;
      output = exact_values ? weighted_values(own, work.count, tokens, work.values, d_)
                            : mixed_output(work, own, quantised.values);
      addend = output.data();
    }
    rescale_and_add(rescale, gain, addend, d_, state.output.data() + work.row * d_);
  }
}

LayerEvaluation::VectorErrors LayerEvaluation::merged(const std::vector<VectorErrors>& heads) {
  VectorErrors all;
  for (const VectorErrors& head : heads) all.merge(head);
  return all;
}

void LayerEvaluation::gather() {
  if (team_.size() == 1) return;
  MessageWriter own;
  const auto [first, last] = share_of(kv_heads_, team_.rank(), team_.size());
  for (std::size_t i = 0; i < states_.size(); ++i) {
    for (std::size_t head = first; head < last; ++head) {
      own(states_[i].keys[head], states_[i].values[head]);
    }
    Judged judged_here = judged(i / parts_, i % parts_);
    for (const std::vector<double>* list : judged_here.lists()) own(*list);
  }
  const std::vector<std::string> messages = team_.all_gather(own.bytes());
  // Queries lie in the order of their KV heads, and so do the members' heads.
  gathered_.resize(states_.size());
  for (int member = 0; member < team_.size(); ++member) {
    MessageReader message(messages[static_cast<std::size_t>(member)]);
    const auto [begin, end] = share_of(kv_heads_, member, team_.size());
    for (std::size_t i = 0; i < states_.size(); ++i) {
      for (std::size_t head = begin; head < end; ++head) {
        message(states_[i].keys[head], states_[i].values[head]);
      }
      for (std::vector<double>* list : gathered_[i].lists()) {
        std::vector<double> more;
        message(more);
        list->insert(list->end(), more.begin(), more.end());
      }
    }
  }
}

LayerEvaluation::Judged LayerEvaluation::judged(std::size_t contender, std::size_t part) const {
  if (!gathered_.empty()) return gathered_[contender * parts_ + part];
  const PartState& state = states_[contender * parts_ + part];
  Judged result;
  std::vector<float> exact_output, output;
  for (std::size_t q = 0; q < state.queries.size(); ++q) {
    const QueryState& query = state.queries[q];
    if (!query.judged) continue;
    // KL = E_s (s - t) - log Z_s + log Z_t.
    result.kl.push_back(query.difference / exact_[q].sum() - exact_[q].log_sum_exp() +
                        query.softmax.log_sum_exp());
    result.agree.push_back(exact_[q].top() == query.softmax.top() ? 1 : 0);
    result.cross.push_back(query.cross);
    result.exact_square.push_back(query.exact_square);
    result.difference_square.push_back(query.difference_square);
    if (state.output.empty()) continue;
    // What was added up is the output times the softmax's sum.
    const float exact_gain = static_cast<float>(1 / exact_[q].sum());
    const float gain = static_cast<float>(1 / query.softmax.sum());
    for (std::size_t j = q * d_; j < (q + 1) * d_; ++j) {
      exact_output.push_back(exact_output_[j] * exact_gain);
      output.push_back(state.output[j] * gain);
    }
  }
  std::vector<ErrorProducts> outputs(output.size() / d_);
  error_products(exact_output.data(), output.data(), outputs.size(), d_, outputs.data());
  for (const ErrorProducts& products : outputs) {
    result.output_error.push_back(
        products.xx > 0 ? static_cast<double>(products.dd) / static_cast<double>(products.xx) : 0);
  }
  return result;
}

LayerMetrics LayerEvaluation::metrics(std::size_t contender, std::size_t part) const {
  const PartState& state = states_[contender * parts_ + part];
  LayerMetrics metrics;
  const auto means = [](const VectorErrors& all, std::optional<double>& relative_mse,
                        std::optional<double>& cosine) {
    if (all.rows == 0) return;
    relative_mse = all.relative_mse.value() / static_cast<double>(all.rows);
    cosine = all.cosine.value() / static_cast<double>(all.rows);
  };
  means(merged(state.keys), metrics.key_relative_mse, metrics.key_cosine);
  means(merged(state.values), metrics.value_relative_mse, metrics.value_cosine);
  const Judged queries = judged(contender, part);
  if (queries.kl.empty()) return metrics;
  if (!contenders_[contender].keys.empty()) {
    metrics.softmax_kl = mean(queries.kl);
    metrics.top1_agreement = mean(queries.agree);
    if (const double square = sum(queries.exact_square); square > 0) {
      const double bias = sum(queries.cross) / square - 1, error = sum(queries.difference_square) / square;
      metrics.inner_product_bias = bias;
      metrics.inner_product_error = std::sqrt(error);
      metrics.inner_product_variance = std::max(0.0, error - bias * bias);
    }
  }
  if (!queries.output_error.empty()) metrics.output_error = mean(queries.output_error);
  return metrics;
}

LayerMetrics LayerEvaluation::standard_errors(std::size_t contender, std::size_t part) const {
  const PartState& state = states_[contender * parts_ + part];
  LayerMetrics errors;
  const auto of_vectors = [](const VectorErrors& all, std::optional<double>& relative_mse,
                             std::optional<double>& cosine) {
    if (all.rows < 2) return;
    const double n = static_cast<double>(all.rows);
    const auto of_mean = [n](double squares, double total) {
      return std::sqrt(std::max(0.0, squares - total * total / n) / (n - 1) / n);
    };
    relative_mse = of_mean(all.relative_mse_squares, all.relative_mse.value());
    cosine = of_mean(all.cosine_gap_squares, n - all.cosine.value());
  };
  of_vectors(merged(state.keys), errors.key_relative_mse, errors.key_cosine);
  of_vectors(merged(state.values), errors.value_relative_mse, errors.value_cosine);
  const Judged queries = judged(contender, part);
  const std::size_t count = queries.kl.size();
  if (count < 2) return errors;
  if (!contenders_[contender].keys.empty()) {
    errors.softmax_kl = standard_error(queries.kl);
    errors.top1_agreement = standard_error(queries.agree);
    if (const double square = sum(queries.exact_square); square > 0) {
      const double slope = sum(queries.cross) / square, ratio = sum(queries.difference_square) / square;
      const double per_square = static_cast<double>(count) / square;
      std::vector<double> bias(count), error(count), variance(count);
      for (std::size_t i = 0; i < count; ++i) {
        bias[i] = (queries.cross[i] - slope * queries.exact_square[i]) * per_square;
        error[i] = (queries.difference_square[i] - ratio * queries.exact_square[i]) * per_square;
        variance[i] = error[i] - 2 * (slope - 1) * bias[i];
      }
      errors.inner_product_bias = standard_error(bias);
      errors.inner_product_error = ratio > 0 ? standard_error(error) / (2 * std::sqrt(ratio)) : 0;
      errors.inner_product_variance = standard_error(variance);
    }
  }
  if (!queries.output_error.empty()) errors.output_error = standard_error(queries.output_error);
  return errors;
}

}  // namespace tq
