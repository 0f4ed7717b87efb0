#include "calibration/token_split.h"

#include <algorithm>

#include "core/error.h"

namespace tq {

TokenSplit::TokenSplit(Holdout holdout, std::size_t tokens) : holdout_(holdout), tokens_(tokens) {
  if (tokens < 2) throw InputError("{} tokens cannot be split into a fit and a held-out part", tokens);
  const std::size_t blocks = (tokens + kBlock - 1) / kBlock;
  if (blocks == 1) {  // a tiny capture: halves
    holdout_ = Holdout::tail;
    boundary_ = tokens / 2;
  } else {
    boundary_ = blocks / 2 * kBlock;
  }
  held_out_tokens_ = 0;
  for (std::size_t token = 0; token < tokens;) {
    const std::size_t end = run_end(token);
    if (held_out(token)) held_out_tokens_ += end - token;
    token = end;
  }
}

bool TokenSplit::held_out(std::size_t token) const {
  return holdout_ == Holdout::tail ? token >= boundary_ : token / kBlock % 2 == 1;
}

std::size_t TokenSplit::run_end(std::size_t token) const {
  if (holdout_ == Holdout::tail) return token < boundary_ ? boundary_ : tokens_;
  return std::min(tokens_, (token / kBlock + 1) * kBlock);
}

}  // namespace tq
