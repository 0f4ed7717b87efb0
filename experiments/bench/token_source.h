#pragma once

#include "core/random.h"
#include "jit/memory.h"
#include "shared/params.h"

namespace tq::bench {

// Random binary16 keys and values for caches of any size, from buffers of some hundred thousand vectors:
// every head, sequence and piece of tokens begins elsewhere in them.
class TokenSource {
 public:
  static constexpr int kPieceTokens = 1 << 16;
  static constexpr int kMostHeads = 32;

  TokenSource(const Device& device, int head_dim, Random& random);
  int head_dim() const { return head_dim_; }

  // Up to kPieceTokens tokens of up to kMostHeads heads.
  gpu::VectorView keys(int sequence, int piece) const { return view(keys_, sequence, piece); }
  gpu::VectorView values(int sequence, int piece) const { return view(values_, sequence, piece); }

 private:
  gpu::VectorView view(const DeviceBuffer& buffer, int sequence, int piece) const;

  int head_dim_;
  DeviceBuffer keys_, values_;
};

}  // namespace tq::bench
