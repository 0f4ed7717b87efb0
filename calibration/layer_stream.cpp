#include "calibration/layer_stream.h"

#include <algorithm>

namespace tq {

LayerStream::LayerStream(Capture& capture, int layer, const TokenSplit* split, std::size_t cache_bytes)
    : capture_(&capture), layer_(layer), split_(split), tokens_(capture.info().tokens) {
  const CaptureInfo& info = capture.info();
  const LayerInfo& shape = info.layers.at(static_cast<std::size_t>(layer));
  const std::size_t tensors = (shape.has_k ? 1u : 0u) + (shape.has_v ? 1u : 0u);
  const std::size_t token_bytes =
      std::max<std::size_t>(1, tensors * static_cast<std::size_t>(info.num_kv_heads) *
                                   static_cast<std::size_t>(shape.head_dim) * sizeof(float));
  // Whole chunks where they fit, so that each is inflated once.
  const Tensor first = shape.has_k ? Tensor::k : shape.has_v ? Tensor::v : Tensor::k_residual;
  const std::size_t chunk = capture.preferred_rows(layer, first);
  block_tokens_ = std::max(chunk, kBlockBytes / token_bytes / chunk * chunk);
  cacheable_ = tokens_ * token_bytes <= cache_bytes;
}

LayerStream::LayerStream(std::shared_ptr<const std::vector<TokenBlock>> blocks) : cache_(std::move(blocks)) {}

TokenBlock LayerStream::read(std::size_t begin, std::size_t end) {
  const LayerInfo& shape = capture_->info().layers.at(static_cast<std::size_t>(layer_));
  TokenBlock block;
  block.begin = begin;
  block.count = end - begin;
  const std::size_t elements = block.count * static_cast<std::size_t>(capture_->info().num_kv_heads) *
                               static_cast<std::size_t>(shape.head_dim);
  if (shape.has_k) {
    block.k.resize(elements);
    capture_->read(layer_, Tensor::k, begin, block.count, block.k.data());
  }
  if (shape.has_v) {
    block.v.resize(elements);
    capture_->read(layer_, Tensor::v, begin, block.count, block.v.data());
  }
  block.positions.resize(block.count);
  block.sequence_ids.resize(block.count);
  capture_->read_positions(begin, block.count, block.positions.data());
  capture_->read_sequence_ids(begin, block.count, block.sequence_ids.data());
  return block;
}

void LayerStream::for_each(const std::function<void(const TokenBlock&)>& visit, int member, int members) {
  std::size_t number = 0;
  const auto next_is_own = [&] {
    return number++ % static_cast<std::size_t>(members) == static_cast<std::size_t>(member);
  };
  if (resident()) {
    for (const TokenBlock& block : *cache_) {
      if (next_is_own()) visit(block);
    }
    return;
  }
  const bool keep = cacheable_ && members == 1;
  auto kept = std::make_shared<std::vector<TokenBlock>>();
  for (std::size_t begin = 0; begin < tokens_;) {
    const std::size_t part_end = split_ != nullptr ? split_->run_end(begin) : tokens_;
    const std::size_t end = std::min({tokens_, part_end, (begin / block_tokens_ + 1) * block_tokens_});
    if (next_is_own()) {
      TokenBlock block = read(begin, end);
      visit(block);
      if (keep) kept->push_back(std::move(block));
    }
    begin = end;
  }
  if (!keep) return;
  cache_ = std::move(kept);
  capture_ = nullptr;
}

LayerQueries read_queries(Capture& capture, int layer) {
  const CaptureInfo& info = capture.info();
  const LayerInfo& shape = info.layers.at(static_cast<std::size_t>(layer));
  LayerQueries queries;
  if (!shape.has_q || info.query_tokens == 0 || info.key_basis != "post_rope") return queries;
  const std::size_t d = static_cast<std::size_t>(shape.head_dim),
                    heads = static_cast<std::size_t>(info.num_q_heads);
  const std::size_t total = info.query_tokens, wanted = std::min(total, LayerQueries::kMostPositions);
  queries.positions_count = wanted;
  queries.q.resize(heads * wanted * d);
  // The spread includes the last row: the query with the most context.
  const auto row_of = [&](std::size_t i) { return wanted == 1 ? total - 1 : i * (total - 1) / (wanted - 1); };
  const std::size_t chunk = capture.preferred_rows(layer, Tensor::q);
  std::vector<float> rows;
  std::size_t i = 0;
  while (i < wanted) {
    const std::size_t begin = row_of(i) / chunk * chunk, count = std::min(chunk, total - begin);
    rows.resize(heads * count * d);
    capture.read(layer, Tensor::q, begin, count, rows.data());
    for (; i < wanted && row_of(i) < begin + count; ++i) {
      for (std::size_t h = 0; h < heads; ++h) {
        std::copy_n(rows.data() + (h * count + row_of(i) - begin) * d, d,
                    queries.q.data() + (h * wanted + i) * d);
      }
      queries.positions.push_back(capture.query_positions()[row_of(i)]);
      queries.sequence_ids.push_back(capture.query_sequence_ids()[row_of(i)]);
    }
  }
  return queries;
}

}  // namespace tq
