#pragma once

#include <cstddef>

namespace tq {

// Which tokens a table is fitted on and which it is judged on. Blocks, not single tokens: neighbours resemble
// each other, and a held-out token beside a fitted one would flatter the table.
enum class Holdout {
  tail,    // the first half of the capture fits, the second judges: also tests whether the fit survives a
           // change of position or document
  blocks,  // blocks alternate: for captures of many documents in one stream
};

class TokenSplit {
 public:
  static constexpr std::size_t kBlock = 128;

  TokenSplit(Holdout holdout, std::size_t tokens);

  bool held_out(std::size_t token) const;
  // The end of the run of tokens from `token` on that belong to the same part.
  std::size_t run_end(std::size_t token) const;
  std::size_t held_out_tokens() const { return held_out_tokens_; }
  std::size_t fit_tokens() const { return tokens_ - held_out_tokens_; }

 private:
  Holdout holdout_;
  std::size_t tokens_;
  std::size_t boundary_;  // tail: first held-out token
  std::size_t held_out_tokens_;
};

}  // namespace tq
