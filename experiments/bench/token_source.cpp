#include "experiments/bench/token_source.h"

#include "experiments/bench/random_vectors.h"

namespace tq::bench {
namespace {

// Primes, so that starts rarely meet.
constexpr int kHeadStep = 4099, kSequenceStep = 8191, kPieceStep = 127, kStarts = 65537;

DeviceBuffer vectors(const Device& device, int head_dim, Random& random) {
  constexpr std::size_t kCount = kStarts + TokenSource::kMostHeads * kHeadStep + TokenSource::kPieceTokens;
  return random_vectors(device, kCount * static_cast<std::size_t>(head_dim), gpu::Element::f16, random);
}

}  // namespace

TokenSource::TokenSource(const Device& device, int head_dim, Random& random)
    : head_dim_(head_dim),
      keys_(vectors(device, head_dim, random)),
      values_(vectors(device, head_dim, random)) {}

gpu::VectorView TokenSource::view(const DeviceBuffer& buffer, int sequence, int piece) const {
  const int start = (sequence * kSequenceStep + piece * kPieceStep) % kStarts;
  return {buffer.as<gpu::u16>() + static_cast<gpu::i64>(start) * head_dim_, 0,
          static_cast<gpu::i64>(kHeadStep) * head_dim_, head_dim_};
}

}  // namespace tq::bench
