#include "core/cache_policy.h"

#include <algorithm>

#include "core/error.h"

namespace tq {
namespace {

void check(const char* name, int value, int least) {
  if (value < least || value > kMaxPolicyTokens) {
    throw UsageError("KV cache: {} is {}, must be from {} to {}", name, value, least, kMaxPolicyTokens);
  }
}

}  // namespace

void validate(const CachePolicy& policy) {
  check("recent", policy.recent, 0);
  check("sinks", policy.sinks, 0);
  check("flush_block", policy.flush_block, 1);
}

TokenCounts token_counts(const CachePolicy& policy, std::size_t tokens) {
  const auto recent = static_cast<std::size_t>(policy.recent);
  const auto block = static_cast<std::size_t>(policy.flush_block);
  const std::size_t sinks = std::min(tokens, static_cast<std::size_t>(policy.sinks));
  const std::size_t rest = tokens - sinks;
  const std::size_t quantised = rest > recent ? (rest - recent) / block * block : 0;
  return {sinks, quantised, rest - quantised};
}

std::size_t window_capacity(const CachePolicy& policy) {
  return static_cast<std::size_t>(policy.recent) + static_cast<std::size_t>(policy.flush_block) - 1;
}

}  // namespace tq
