#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "core/codec_config.h"
#include "core/rotation.h"

namespace tq {

// The d x d sketch matrix S of QJL (arXiv:2406.03482, Definition 3.1), applied in the rotated frame.
//   gaussian:   iid N(0,1).
//   orthogonal: sqrt(d) times an RHT with its own streams: O(d) memory, O(d log d) time, lower variance.
class Sketch {
 public:
  // Throws UsageError as Rotation::make does.
  static Sketch make(SketchKind kind, int head_dim, std::uint64_t seed);
  // From what an artefact carries. Throw InputError on wrong sizes or contents.
  static Sketch from_signs(std::vector<float> signs, std::vector<std::uint16_t> permutation,
                           std::uint64_t seed);
  static Sketch from_matrix(std::vector<float> matrix, std::uint64_t seed);

  SketchKind kind() const { return kind_; }
  int head_dim() const { return head_dim_; }
  std::uint64_t seed() const { return seed_; }

  // orthogonal: the RHT R with S = sqrt(d) R. Must not be called for gaussian.
  const Rotation& rht() const { return *rht_; }
  // gaussian: S, row-major d x d, and S^T. Empty for orthogonal.
  std::span<const float> matrix() const { return matrix_; }
  std::span<const float> transposed() const { return transposed_; }

  // Bytes that the object occupies in an artefact: orthogonal d/8 + 2 d, gaussian 4 d^2.
  std::size_t stored_bytes() const { return rht_ ? rht_->stored_bytes() : matrix_.size() * sizeof(float); }

 private:
  Sketch() = default;
  SketchKind kind_ = SketchKind::orthogonal;
  int head_dim_ = 0;
  std::uint64_t seed_ = 0;
  std::shared_ptr<const Rotation> rht_;
  std::vector<float> matrix_;
  std::vector<float> transposed_;
};

}  // namespace tq
