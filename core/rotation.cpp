#include "core/rotation.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "core/rotation.cpp"
#include <hwy/foreach_target.h>

#include "core/rotation-inl.h"

HWY_BEFORE_NAMESPACE();
namespace tq::HWY_NAMESPACE {

void rotate_rows(const Rotation& rotation, bool inverse, const float* in, float* out, std::size_t rows) {
  const std::size_t d = static_cast<std::size_t>(rotation.head_dim());
  const TileBuffer a = make_tile(d), b = make_tile(d);
  for (std::size_t r = 0; r < rows; r += kTileRows) {
    const std::size_t count = HWY_MIN(kTileRows, rows - r);
    load_tile(in + r * d, count, d, a.get());
    if (inverse) {
      unrotate_tile(rotation, a.get(), b.get());
    } else {
      rotate_tile(rotation, a.get(), b.get());
    }
    store_tile(b.get(), count, d, out + r * d);
  }
}

void rotate_unit_rows(const Rotation& rotation, const float* in, float* out, float* norms, std::size_t rows) {
  const std::size_t d = static_cast<std::size_t>(rotation.head_dim());
  const TileBuffer a = make_tile(d), b = make_tile(d);
  HWY_ALIGN float tile_norms[kTileRows];
  for (std::size_t r = 0; r < rows; r += kTileRows) {
    const std::size_t count = HWY_MIN(kTileRows, rows - r);
    load_tile(in + r * d, count, d, a.get());
    store(normalise_tile(a.get(), d), tile_norms);
    std::copy_n(tile_norms, count, norms + r);
    rotate_tile(rotation, a.get(), b.get());
    store_tile(b.get(), count, d, out + r * d);
  }
}

}  // namespace tq::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include <Eigen/QR>

#include "core/dense.h"
#include "core/error.h"
#include "core/random.h"

namespace tq {
namespace {
HWY_EXPORT(rotate_rows);
HWY_EXPORT(rotate_unit_rows);

using RowMajor = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using RowMajorFloat = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

void check_head_dim(int head_dim) {
  if (head_dim < 16 || head_dim > 1024 || head_dim % 8 != 0) {
    throw UsageError("no rotation for head_dim {}: it must be a multiple of 8 from 16 to 1024", head_dim);
  }
}

std::vector<float> haar_matrix(int head_dim, std::uint64_t seed) {
  Random random(seed, RandomStream::rotation_matrix);
  RowMajor gaussian(head_dim, head_dim);
  for (Eigen::Index i = 0; i < gaussian.size(); ++i) gaussian.data()[i] = random.normal();
  const Eigen::HouseholderQR<RowMajor> qr(gaussian);
  RowMajor q = qr.householderQ() * RowMajor::Identity(head_dim, head_dim);
  for (int j = 0; j < head_dim; ++j) {
    if (qr.matrixQR()(j, j) < 0) q.col(j) *= -1;
  }
  const RowMajorFloat single = q.cast<float>();
  return {single.data(), single.data() + single.size()};
}

}  // namespace

Rotation Rotation::draw_rht(int head_dim, std::uint64_t seed, RandomStream sign_stream,
                            RandomStream permutation_stream) {
  Rotation rotation;
  rotation.kind_ = RotationKind::rht;
  rotation.head_dim_ = head_dim;
  rotation.seed_ = seed;
  rotation.hadamard_ = hadamard_plan(head_dim);
  const std::size_t d = static_cast<std::size_t>(head_dim);
  Random signs(seed, sign_stream);
  rotation.signs_.resize(d);
  for (float& sign : rotation.signs_) sign = (signs.bits32() >> 31) != 0 ? -1.0f : 1.0f;
  // Fisher-Yates.
  Random draws(seed, permutation_stream);
  rotation.permutation_.resize(d);
  for (std::size_t i = 0; i < d; ++i) rotation.permutation_[i] = static_cast<std::uint16_t>(i);
  for (std::size_t i = d - 1; i > 0; --i) {
    std::swap(rotation.permutation_[i],
              rotation.permutation_[draws.below(static_cast<std::uint32_t>(i + 1))]);
  }
  return rotation;
}

Rotation Rotation::make(RotationKind kind, int head_dim, std::uint64_t seed) {
  check_head_dim(head_dim);
  if (kind == RotationKind::rht) {
    return draw_rht(head_dim, seed, RandomStream::rotation_signs, RandomStream::rotation_permutation);
  }
  Rotation rotation;
  rotation.kind_ = RotationKind::qr;
  rotation.head_dim_ = head_dim;
  rotation.seed_ = seed;
  rotation.matrix_ = haar_matrix(head_dim, seed);
  rotation.transposed_ = tq::transposed(rotation.matrix_, static_cast<std::size_t>(head_dim));
  return rotation;
}

Rotation Rotation::from_signs(std::vector<float> signs, std::vector<std::uint16_t> permutation,
                              std::uint64_t seed) {
  const int head_dim = static_cast<int>(std::min<std::size_t>(signs.size(), 1 << 20));
  if (!hadamard_supported(head_dim))
    throw InputError("{} rotation signs: no Hadamard matrix of that order", head_dim);
  if (permutation.size() != signs.size()) {
    throw InputError("{} rotation signs but a permutation of {}", signs.size(), permutation.size());
  }
  for (std::size_t i = 0; i < signs.size(); ++i) {
    if (signs[i] != 1.0f && signs[i] != -1.0f)
      throw InputError("rotation sign {} is {}, not +-1", i, signs[i]);
  }
  std::vector<bool> seen(permutation.size());
  for (const std::uint16_t index : permutation) {
    if (index >= seen.size() || seen[index])
      throw InputError("rotation permutation: {} is out of range or twice", index);
    seen[index] = true;
  }
  Rotation rotation;
  rotation.kind_ = RotationKind::rht;
  rotation.head_dim_ = head_dim;
  rotation.seed_ = seed;
  rotation.hadamard_ = hadamard_plan(head_dim);
  rotation.signs_ = std::move(signs);
  rotation.permutation_ = std::move(permutation);
  return rotation;
}

Rotation Rotation::from_matrix(std::vector<float> matrix, std::uint64_t seed) {
  const int head_dim = static_cast<int>(std::lround(std::sqrt(static_cast<double>(matrix.size()))));
  if (static_cast<std::size_t>(head_dim) * static_cast<std::size_t>(head_dim) != matrix.size() ||
      head_dim < 16 || head_dim > 1024 || head_dim % 8 != 0) {
    throw InputError("a rotation matrix of {} entries is not d x d for a multiple of 8 from 16 to 1024",
                     matrix.size());
  }
  for (const float entry : matrix) {  // Eigen's maximum below may pass over a NaN
    if (!std::isfinite(entry)) throw InputError("the rotation matrix is not finite");
  }
  const Eigen::Map<const RowMajorFloat> q(matrix.data(), head_dim, head_dim);
  const double error =
      (q * q.transpose() - RowMajorFloat::Identity(head_dim, head_dim)).cwiseAbs().maxCoeff();
  if (!(error < 1e-4))
    throw InputError("the rotation matrix is not orthogonal: |Q Q^T - I| reaches {:.2g}", error);
  Rotation rotation;
  rotation.kind_ = RotationKind::qr;
  rotation.head_dim_ = head_dim;
  rotation.seed_ = seed;
  rotation.transposed_ = tq::transposed(matrix, static_cast<std::size_t>(head_dim));
  rotation.matrix_ = std::move(matrix);
  return rotation;
}

void Rotation::forward(const float* in, float* out, std::size_t rows) const {
  const std::size_t d = static_cast<std::size_t>(head_dim_);
  parallel_blocks(rows, [&](std::size_t begin, std::size_t end) {
    HWY_DYNAMIC_DISPATCH(rotate_rows)(*this, false, in + begin * d, out + begin * d, end - begin);
  });
}

void Rotation::inverse(const float* in, float* out, std::size_t rows) const {
  const std::size_t d = static_cast<std::size_t>(head_dim_);
  parallel_blocks(rows, [&](std::size_t begin, std::size_t end) {
    HWY_DYNAMIC_DISPATCH(rotate_rows)(*this, true, in + begin * d, out + begin * d, end - begin);
  });
}

void Rotation::forward_unit(const float* in, float* out, float* norms, std::size_t rows) const {
  const std::size_t d = static_cast<std::size_t>(head_dim_);
  parallel_blocks(rows, [&](std::size_t begin, std::size_t end) {
    HWY_DYNAMIC_DISPATCH(rotate_unit_rows)
    (*this, in + begin * d, out + begin * d, norms + begin, end - begin);
  });
}

std::size_t Rotation::stored_bytes() const {
  const std::size_t d = static_cast<std::size_t>(head_dim_);
  return kind_ == RotationKind::rht ? d / 8 + 2 * d : 4 * d * d;
}

}  // namespace tq
#endif
