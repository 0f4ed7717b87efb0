#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "calibration/token_split.h"
#include "datasets/capture.h"

namespace tq {

// Consecutive tokens of one layer.
struct TokenBlock {
  std::size_t begin = 0, count = 0;
  std::vector<float> k, v;  // [kv_heads][count][head_dim]; empty where the capture has none
  std::vector<std::int32_t> positions, sequence_ids;
};

// One layer of a capture, block by block, as often as asked. A layer that fits in `cache_bytes` is read once
// and kept, and copies made from then on share it; a larger one is read again on every pass.
class LayerStream {
 public:
  static constexpr std::size_t kCacheBytes = std::size_t{96} << 20;
  static constexpr std::size_t kBlockBytes = std::size_t{8} << 20;  // of k and v together, as float32

  // No block straddles two parts of `split`, which must outlive the stream; null: all tokens are one part.
  LayerStream(Capture& capture, int layer, const TokenSplit* split, std::size_t cache_bytes = kCacheBytes);

  // Tokens that are in memory already.
  explicit LayerStream(std::shared_ptr<const std::vector<TokenBlock>> blocks);

  // All tokens are in memory: the capture is no longer needed.
  bool resident() const { return capture_ == nullptr; }

  // Calls visit(block) for all tokens in order; for a member of several, the blocks that are its own: every
  // `members`th. Those it reads again in every pass.
  void for_each(const std::function<void(const TokenBlock&)>& visit, int member = 0, int members = 1);

 private:
  TokenBlock read(std::size_t begin, std::size_t end);

  Capture* capture_ = nullptr;
  int layer_ = 0;
  const TokenSplit* split_ = nullptr;
  std::size_t tokens_ = 0;
  std::size_t block_tokens_ = 0;
  bool cacheable_ = true;
  std::shared_ptr<const std::vector<TokenBlock>> cache_;  // null until resident
};

// The queries of one layer that metrics are measured with, at most kMostPositions positions, evenly spaced
// over the capture's query rows.
struct LayerQueries {
  static constexpr std::size_t kMostPositions = 512;

  std::size_t positions_count = 0;
  std::vector<float> q;  // [q_heads][positions_count][head_dim]
  std::vector<std::int32_t> positions, sequence_ids;
};
// Empty when the layer has no queries, or when keys are not post-RoPE (scores would be meaningless).
LayerQueries read_queries(Capture& capture, int layer);

}  // namespace tq
