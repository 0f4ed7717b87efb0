#include "core/sketch.h"

#include <cmath>

#include "core/dense.h"
#include "core/error.h"
#include "core/random.h"

namespace tq {
Sketch Sketch::make(SketchKind kind, int head_dim, std::uint64_t seed) {
  Sketch sketch;
  sketch.kind_ = kind;
  sketch.head_dim_ = head_dim;
  sketch.seed_ = seed;
  if (kind == SketchKind::orthogonal) {
    sketch.rht_ = std::make_shared<const Rotation>(
        Rotation::draw_rht(head_dim, seed, RandomStream::sketch_signs, RandomStream::sketch_permutation));
    return sketch;
  }
  if (head_dim < 16 || head_dim > 1024 || head_dim % 8 != 0) {
    throw UsageError("no sketch for head_dim {}: it must be a multiple of 8 from 16 to 1024", head_dim);
  }
  Random random(seed, RandomStream::sketch_matrix);
  const std::size_t d = static_cast<std::size_t>(head_dim);
  sketch.matrix_.resize(d * d);
  for (float& entry : sketch.matrix_) entry = static_cast<float>(random.normal());
  sketch.transposed_ = tq::transposed(sketch.matrix_, d);
  return sketch;
}

Sketch Sketch::from_signs(std::vector<float> signs, std::vector<std::uint16_t> permutation,
                          std::uint64_t seed) {
  Sketch sketch;
  sketch.rht_ =
      std::make_shared<const Rotation>(Rotation::from_signs(std::move(signs), std::move(permutation), seed));
  sketch.kind_ = SketchKind::orthogonal;
  sketch.head_dim_ = sketch.rht_->head_dim();
  sketch.seed_ = seed;
  return sketch;
}

Sketch Sketch::from_matrix(std::vector<float> matrix, std::uint64_t seed) {
  const int head_dim = static_cast<int>(std::lround(std::sqrt(static_cast<double>(matrix.size()))));
  const std::size_t d = static_cast<std::size_t>(head_dim);
  if (d * d != matrix.size() || head_dim < 16 || head_dim > 1024 || head_dim % 8 != 0) {
    throw InputError("a sketch matrix of {} entries is not d x d for a multiple of 8 from 16 to 1024",
                     matrix.size());
  }
  for (std::size_t i = 0; i < matrix.size(); ++i) {
    if (!std::isfinite(matrix[i]))
      throw InputError("the sketch matrix is not finite at ({}, {})", i / d, i % d);
  }
  Sketch sketch;
  sketch.kind_ = SketchKind::gaussian;
  sketch.head_dim_ = head_dim;
  sketch.seed_ = seed;
  sketch.transposed_ = tq::transposed(matrix, d);
  sketch.matrix_ = std::move(matrix);
  return sketch;
}

}  // namespace tq
