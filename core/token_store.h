#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "core/cache_layer.h"
#include "core/cache_policy.h"

namespace tq {

// Tokens that one page holds, for all KV heads.
inline constexpr std::size_t kPageTokens = 64;

// A page of codes: KV heads one after the other, within a head one array of kPageTokens rows after the other.
// The offset of each array in a head's part, and the bytes of one of its rows (0: not in this mode). Every
// array begins at a multiple of 64 bytes from the page's, since kPageTokens rows of anything are one.
struct PageLayout {
  std::size_t key_codes = 0, key_code_bytes = 0;
  std::size_t key_scales = 0, key_scale_bytes = 0;
  std::size_t key_signs = 0, key_sign_bytes = 0;
  std::size_t key_residual_norms = 0, key_residual_norm_bytes = 0;
  std::size_t value_codes = 0, value_code_bytes = 0;
  std::size_t value_scales = 0, value_scale_bytes = 0;
  std::size_t value_zeros = 0, value_zero_bytes = 0;
  std::size_t head_bytes = 0;
};

// The tokens of one sequence in one layer of a KvCache. Storage grows by pages that are never moved; what was
// written to a page of codes is never changed.
class TokenStore {
 public:
  // `layer` must outlive the store.
  TokenStore(const CacheLayer& layer, const CachePolicy& policy);

  std::size_t tokens() const { return tokens_; }
  // In an exact layer every token counts as a sink.
  TokenCounts counts() const { return counts_after(tokens_); }
  // When it holds that many.
  TokenCounts counts_after(std::size_t tokens) const;

  // As KvCache::append.
  void append(const float* k, const float* v, std::size_t tokens);

  // --- quantised tokens ---
  std::size_t pages() const { return (counts().quantised + kPageTokens - 1) / kPageTokens; }
  std::size_t page_rows(std::size_t page) const;
  ConstKeyBlock keys(std::size_t page, int kv_head) const;
  ConstValueBlock values(std::size_t page, int kv_head) const;

  // --- exact tokens ---
  enum class Part { sinks, window };
  enum class Side { keys, values };
  // Tokens [begin, begin + count) of the part, oldest first. out: count x d.
  void read_exact(Part part, Side side, int kv_head, std::size_t begin, std::size_t count, float* out) const;

  const PageLayout& layout() const { return layout_; }
  std::size_t allocated_bytes() const;  // whole pages and the whole window

  // The content as bytes, given to or asked from the caller piece by piece: sinks page by page (a KV head:
  // its keys, its values), codes page by page (a KV head: key codes, scales, signs, residual norms, value
  // codes, scales, zero points), the window (all keys, all values; a KV head: rows oldest first). Only rows
  // in use; numbers little-endian.
  void save(const std::function<void(const void*, std::size_t)>& write) const;
  // Fills an empty store. Allocates a page only when all bytes before it have been read.
  void restore(std::size_t tokens, const std::function<void(void*, std::size_t)>& read);

 private:
  using CodePage = std::unique_ptr<std::uint8_t[]>;   // see PageLayout
  using HalfPage = std::unique_ptr<std::uint16_t[]>;  // kv_heads x (keys, values) x kPageTokens x d

  std::uint8_t* head_part(std::size_t page, int kv_head) const;
  std::size_t window_size() const { return window_capacity(policy_); }
  KeyBlock mutable_keys(std::size_t page, int kv_head, std::size_t row) const;
  ValueBlock mutable_values(std::size_t page, int kv_head, std::size_t row) const;
  std::uint16_t* sink(Side side, int kv_head, std::size_t token) const;
  std::uint16_t* window_slot(Side side, int kv_head, std::size_t slot) const;

  // Calls piece(rows, how many) for the contiguous runs that tokens [begin, begin + count) lie in.
  template <typename Piece>
  void for_each_sink_run(Side side, int kv_head, std::size_t begin, std::size_t count,
                         const Piece& piece) const;
  template <typename Piece>
  void for_each_window_run(Side side, int kv_head, std::size_t begin, std::size_t count,
                           const Piece& piece) const;
  // Calls piece(pointer, bytes) as save() says, and before_page(counts) before each page with the tokens that
  // there must be room for.
  template <typename BeforePage, typename Piece>
  void for_each_piece(const BeforePage& before_page, const Piece& piece) const;

  void reserve(const TokenCounts& counts);
  void store_sinks(const float* k, const float* v, std::size_t tokens);
  // `count` tokens: the window's oldest, then the input's.
  void quantise(const float* k, const float* v, std::size_t count);
  // `held`: tokens that are in the window already.
  void store_window(const float* k, const float* v, std::size_t held, std::size_t tokens);

  const CacheLayer* layer_;
  CachePolicy policy_;
  PageLayout layout_;
  std::size_t d_, kv_heads_;
  std::size_t tokens_ = 0;
  std::vector<CodePage> code_pages_;
  std::vector<HalfPage> sink_pages_;
  // A ring: (keys, values) x kv_heads x window_size() x d. Null while nothing was in the window.
  std::unique_ptr<std::uint16_t[]> window_;
  std::size_t window_first_ = 0;  // slot of the oldest token
};

}  // namespace tq
