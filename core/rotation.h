#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "core/codec_config.h"
#include "core/hadamard.h"
#include "core/random.h"

namespace tq {

// An orthogonal map Pi of R^d (arXiv:2504.19874, section 3.1), drawn from a seed by core/random.h.
//   qr:  Q of the QR factorisation of an iid N(0,1) matrix, columns multiplied by sign(diag R): Haar
//   distributed. rht: Pi x = P H D x / sqrt(d); D random signs, H the Hadamard matrix of core/hadamard.h, P a
//   random permutation.
// Immutable once built; safe to share between threads.
class Rotation {
 public:
  // Throws UsageError when head_dim is not a multiple of 8 from 16 to 1024, or for rht when no H is known for
  // it.
  static Rotation make(RotationKind kind, int head_dim, std::uint64_t seed);

  // From what an artefact carries. Throw InputError when sizes do not fit, a sign is not +-1, the permutation
  // is not one, or the matrix is not orthogonal to 1e-4. `seed` is kept as provenance only.
  static Rotation from_signs(std::vector<float> signs, std::vector<std::uint16_t> permutation,
                             std::uint64_t seed);
  static Rotation from_matrix(std::vector<float> matrix, std::uint64_t seed);

  RotationKind kind() const { return kind_; }
  int head_dim() const { return head_dim_; }
  std::uint64_t seed() const { return seed_; }

  // rht: y[i] = (H D x)[permutation()[i]] / sqrt(d). Empty for qr.
  std::span<const float> signs() const { return signs_; }
  std::span<const std::uint16_t> permutation() const { return permutation_; }
  const HadamardPlan& hadamard() const { return hadamard_; }
  // qr: Pi, row-major d x d. Empty for rht. `transposed()` is Pi^T, kept so that both directions read
  // contiguously.
  std::span<const float> matrix() const { return matrix_; }
  std::span<const float> transposed() const { return transposed_; }

  // rows x d, row-major, in float32; `out` may not overlap `in`. inverse(forward(x)) is x to 1e-6 relative.
  void forward(const float* in, float* out, std::size_t rows) const;
  void inverse(const float* in, float* out, std::size_t rows) const;

  // out: Pi x / ||x|| (zeros for a zero vector); norms: ||x||, one a row. What codebooks are fitted to.
  void forward_unit(const float* in, float* out, float* norms, std::size_t rows) const;

  // Bytes that the object occupies in an artefact: rht d/8 + 2 d, qr 4 d^2.
  std::size_t stored_bytes() const;

 private:
  friend class Sketch;
  Rotation() = default;
  static Rotation draw_rht(int head_dim, std::uint64_t seed, RandomStream sign_stream,
                           RandomStream permutation_stream);

  RotationKind kind_ = RotationKind::rht;
  int head_dim_ = 0;
  std::uint64_t seed_ = 0;
  std::vector<float> signs_;
  std::vector<std::uint16_t> permutation_;
  HadamardPlan hadamard_;
  std::vector<float> matrix_;
  std::vector<float> transposed_;
};

}  // namespace tq
