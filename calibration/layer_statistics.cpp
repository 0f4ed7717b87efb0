#include "calibration/layer_statistics.h"

#include "core/attention.h"
#include "core/message.h"
#include "core/tile.h"

namespace tq {
namespace {

// One entry a KV head, or all of them merged into one.
template <typename Statistic>
std::vector<Statistic> gather(std::vector<Statistic> heads, bool per_head) {
  if (per_head) return heads;
  for (std::size_t h = 1; h < heads.size(); ++h) heads.front().merge(heads[h]);
  heads.resize(1, heads.front());
  return heads;
}

// What all members of the team collected, merged: exact, so that it does not matter who collected what.
template <typename Statistic>
void merge_over(const ProcessGroup& team, std::vector<Statistic>& statistics) {
  if (team.size() == 1) return;
  MessageWriter own;
  for (const Statistic& statistic : statistics) own(statistic);
  const std::vector<std::string> messages = team.all_gather(own.bytes());
  for (std::size_t member = 0; member < messages.size(); ++member) {
    if (member == static_cast<std::size_t>(team.rank())) continue;
    MessageReader message(messages[member]);
    for (Statistic& statistic : statistics) {
      Statistic received = statistic;
      message(received);
      statistic.merge(received);
    }
  }
}

// The member's blocks of the layer. Progress counts them for the others too.
void for_each_own_block(LayerContext& layer, const std::function<void(const TokenBlock&)>& visit) {
  layer.stream.for_each(
      [&](const TokenBlock& block) {
        layer.progress(block.count * static_cast<std::size_t>(layer.team->size()));
        if (!layer.held_out(block)) visit(block);
      },
      layer.team->rank(), layer.team->size());
}

std::size_t row_id(std::size_t head, std::size_t token) { return head << 40 | token; }

// Least squares of <q,r^> on <q,r> over the (query, key) pairs that attention forms. The two scores with
// alpha 0 and 1 bracket <q,r^>; what the exact score exceeds the first by is <q,r>.
void collect_scores(const LayerContext& layer, const TokenBlock& block, std::size_t head,
                    const KeyCodec& without, const KeyCodec& with, const EncodedKeys& encoded,
                    ResidualStatistics& statistics) {
  const std::size_t d = layer.head_dim(), tokens = block.count, positions = layer.queries.positions_count;
  const std::size_t group = static_cast<std::size_t>(layer.num_q_heads / layer.num_kv_heads);
  std::vector<float> exact(positions * tokens), base(exact.size()), full(exact.size());
  std::vector<double> ab(tokens, 0.0), bb(tokens, 0.0);
  for (std::size_t g = 0; g < group; ++g) {
    const float* queries = layer.queries.q.data() + (head * group + g) * positions * d;
    dense_scores(queries, positions, block.k.data() + head * tokens * d, tokens, d, exact.data());
    const PreparedQueries prepared = with.prepare(queries, positions);
    without.scores(prepared, encoded, base.data());
    with.scores(prepared, encoded, full.data());
    for (std::size_t i = 0; i < positions; ++i) {
      for (std::size_t t = 0; t < tokens; ++t) {
        const bool sees = block.sequence_ids[t] == layer.queries.sequence_ids[i] &&
                          block.positions[t] <= layer.queries.positions[i];
        const std::size_t k = i * tokens + t;
        const double a = sees ? static_cast<double>(exact[k]) - static_cast<double>(base[k]) : 0;
        const double b = sees ? static_cast<double>(full[k]) - static_cast<double>(base[k]) : 0;
        ab[t] += a * b;
        bb[t] += b * b;
      }
    }
  }
  for (std::size_t t = 0; t < tokens; ++t) statistics.add_scores(ab[t], bb[t]);
}

}  // namespace

LayerHistograms collect_histograms(LayerContext& layer, bool per_head, bool keys, bool values) {
  const std::size_t heads = layer.kv_heads(), d = layer.head_dim();
  const CoordinateHistogram empty(layer.info.head_dim);
  std::vector<CoordinateHistogram> key_heads(keys ? heads : 0, empty), value_heads(values ? heads : 0, empty);
  for_each_own_block(layer, [&](const TokenBlock& block) {
  // Tasks: every head's keys, then every head's values.
#pragma omp parallel for schedule(dynamic) num_threads(team_size(2 * heads))
    for (std::size_t task = 0; task < 2 * heads; ++task) {
      const std::size_t head = task % heads;
      const bool is_key = task < heads;
      if (is_key ? !keys : !values) continue;
      const std::vector<float>& tensor = is_key ? block.k : block.v;
      CoordinateHistogram& histogram = is_key ? key_heads[head] : value_heads[head];
      std::vector<float> rotated(block.count * d), norms(block.count);
      layer.rotation->forward_unit(tensor.data() + head * block.count * d, rotated.data(), norms.data(),
                                   block.count);
      histogram.add(rotated.data(), norms.data(), block.count);
    }
  });
  LayerHistograms histograms;
  if (keys) histograms.keys = gather(std::move(key_heads), per_head);
  if (values) histograms.values = gather(std::move(value_heads), per_head);
  merge_over(*layer.team, histograms.keys);
  merge_over(*layer.team, histograms.values);
  return histograms;
}

std::vector<std::vector<ResidualStatistics>> collect_residuals(
    LayerContext& layer, bool per_head, const KeyConfig& config,
    const std::vector<std::vector<KeyTables>>& tables, AlphaTarget target) {
  const std::size_t heads = layer.kv_heads(), d = layer.head_dim(), sets = tables.size();
  // [table set][head]
  std::vector<std::vector<KeyCodec>> without(sets), with(sets);
  for (std::size_t s = 0; s < sets; ++s) {
    for (std::size_t h = 0; h < heads; ++h) {
      KeyTables table = tables[s][tables[s].size() == 1 ? 0 : h];
      table.qjl_scale = 0;
      without[s].emplace_back(config, layer.rotation, layer.sketch, table);
      table.qjl_scale = 1;
      with[s].emplace_back(config, layer.rotation, layer.sketch, table);
    }
  }
  std::vector<std::vector<ResidualStatistics>> statistics(sets, std::vector<ResidualStatistics>(heads));
  for_each_own_block(layer, [&](const TokenBlock& block) {
#pragma omp parallel for schedule(dynamic) num_threads(team_size(sets* heads))
    for (std::size_t task = 0; task < sets * heads; ++task) {
      const std::size_t set = task / heads, head = task % heads;
      ResidualStatistics& into = statistics[set][head];
      const float* keys = block.k.data() + head * block.count * d;
      std::vector<ResidualProducts> products(block.count);
      with[set][head].residual_products(keys, block.count, products.data());
      for (std::size_t t = 0; t < block.count; ++t) into.add(products[t], row_id(head, block.begin + t));
      if (target == AlphaTarget::score) {
        EncodedKeys encoded;
        with[set][head].encode(keys, block.count, encoded);
        collect_scores(layer, block, head, without[set][head], with[set][head], encoded, into);
      }
    }
  });
  std::vector<std::vector<ResidualStatistics>> result;
  for (auto& by_head : statistics) {
    result.push_back(gather(std::move(by_head), per_head));
    merge_over(*layer.team, result.back());
  }
  return result;
}

}  // namespace tq
