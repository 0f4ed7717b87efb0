#pragma once

#include <cstddef>
#include <vector>

namespace tq {

// Rotary position embeddings (Su et al., arXiv:2104.09864) in the order of transformers: coordinate j < d / 2
// is paired with j + d / 2 and turned by position * theta^(-2 j / d). Angles are rounded to float32, as
// there.
class RotaryEmbedding {
 public:
  // Of positions 0 .. positions - 1.
  RotaryEmbedding(int head_dim, double theta, std::size_t positions);

  // Turns all heads of x, positions x heads x d, in place. On OpenMP threads.
  void apply(float* x, std::size_t heads) const;

 private:
  std::size_t half_, positions_;
  std::vector<float> cos_, sin_;  // positions x d / 2
};

}  // namespace tq
