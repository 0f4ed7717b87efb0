#pragma once

#include <cstddef>

namespace tq {

// Which tokens of a sequence a cache keeps exact, that is as binary16, and when it quantises the others.
struct CachePolicy {
  int recent = 128;     // newest tokens kept exact
  int sinks = 0;        // first tokens kept exact for ever
  int flush_block = 1;  // tokens quantised at a time: the window holds recent .. recent + flush_block - 1
  friend bool operator==(const CachePolicy&, const CachePolicy&) = default;
};

// Far beyond any use, and small enough that no size computed from it overflows.
inline constexpr int kMaxPolicyTokens = 1 << 24;

// Throws UsageError unless recent and sinks lie in 0..kMaxPolicyTokens and flush_block
// in 1..kMaxPolicyTokens.
void validate(const CachePolicy&);

// Where the tokens of a sequence are: the first `sinks` exact, then `quantised`, then `window` exact.
struct TokenCounts {
  std::size_t sinks = 0;
  std::size_t quantised = 0;
  std::size_t window = 0;
  std::size_t total() const { return sinks + quantised + window; }
  friend bool operator==(const TokenCounts&, const TokenCounts&) = default;
};

// A function of the number of tokens alone: it does not matter in how many pieces they came. A token is
// quantised when recent + flush_block tokens follow the last quantised one, flush_block of them at once, and
// never again. Of N tokens beyond the sinks, max(0, N - recent) rounded down to a multiple of flush_block.
TokenCounts token_counts(const CachePolicy& policy, std::size_t tokens);

// Most tokens that the window ever holds.
std::size_t window_capacity(const CachePolicy& policy);

}  // namespace tq
