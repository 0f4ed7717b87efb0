#include "core/key_codec.h"

#include "core/half.h"
#include "core/packing.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "core/key_codec.cpp"
#include <hwy/foreach_target.h>

#include "core/key_codec-inl.h"

#ifndef TQ_CORE_KEY_CODEC_VIEW_
#define TQ_CORE_KEY_CODEC_VIEW_
namespace tq {

// What the kernels read of a codec.
struct KeyKernel {
  KeyConfig config;
  const Rotation* rotation;
  const Sketch* sketch;  // prod only
  const float* centroids;
  const float* inner_boundaries;
  float alpha;

  std::size_t head_dim() const { return static_cast<std::size_t>(rotation->head_dim()); }
  std::size_t code_bytes() const { return packed_bytes(head_dim(), config.table_bits()); }
  bool prod() const { return config.mode == KeyMode::prod; }
};

}  // namespace tq
#endif

HWY_BEFORE_NAMESPACE();
namespace tq::HWY_NAMESPACE {

// The word buffers hold whole 32-bit words of 16 vectors: at most d * 8 / 32 of them.
using WordBuffer = hwy::AlignedFreeUniquePtr<std::uint32_t[]>;
HWY_INLINE WordBuffer make_words(std::size_t d) {
  return hwy::AllocateAligned<std::uint32_t>((d * 8 / 32 + 1) * kTileRows);
}

void encode_block(const KeyKernel& codec, const float* x, std::size_t rows, KeyBlock out) {
  const std::size_t d = codec.head_dim(), code_bytes = codec.code_bytes();
  const int bits = codec.config.table_bits();
  const TileBuffer a = make_tile(d), b = make_tile(d);
  const WordBuffer words = make_words(d);
  for (std::size_t r = 0; r < rows; r += kTileRows) {
    const std::size_t count = HWY_MIN(kTileRows, rows - r);
    load_tile(x + r * d, count, d, a.get());
    const FloatRow norm = normalise_tile(a.get(), d);
    rotate_tile(*codec.rotation, a.get(), b.get());
    float* residual = codec.prod() ? a.get() : nullptr;
    const QuantisedSums sums =
        quantise_tile(bits, b.get(), d, codec.inner_boundaries, codec.centroids, words.get(), residual);
    store_words(words.get(), count, code_bytes, out.codes + r * code_bytes);
    FloatRow scale = norm;
    if (!codec.prod() && codec.config.scale != ScaleRule::norm) {
      for (std::size_t i = 0; i < kVectors; ++i) {
        const auto factor = codec.config.scale == ScaleRule::nc
                                ? hn::Div(hn::Set(Float(), 1), hn::Sqrt(sums.cc.v[i]))
                                : hn::Div(sums.yc.v[i], sums.cc.v[i]);
        scale.v[i] = hn::Mul(norm.v[i], factor);
      }
    }
    store_halves(scale, count, out.scales + r);
    if (codec.prod()) {
      const FloatRow square = dot(residual, residual, d);
      FloatRow residual_norm;
      for (std::size_t i = 0; i < kVectors; ++i)
        residual_norm.v[i] = hn::Mul(norm.v[i], hn::Sqrt(square.v[i]));
      store_halves(residual_norm, count, out.residual_norms + r);
      sketch_tile(*codec.sketch, residual, b.get());
      pack_signs(b.get(), d, words.get());
      store_words(words.get(), count, d / 8, out.signs + r * (d / 8));
    }
  }
}

void decode_block(const KeyKernel& codec, ConstKeyBlock keys, std::size_t rows, bool rotated, float* out) {
  const std::size_t d = codec.head_dim(), code_bytes = codec.code_bytes();
  const int bits = codec.config.table_bits();
  const TileBuffer a = make_tile(d), b = make_tile(d);
  const WordBuffer words = make_words(d);
  for (std::size_t r = 0; r < rows; r += kTileRows) {
    const std::size_t count = HWY_MIN(kTileRows, rows - r);
    FloatRow gain = broadcast(0);
    if (codec.prod()) {
      load_words(keys.signs + r * (d / 8), count, d / 8, words.get());
      sign_tile(words.get(), d, a.get());
      back_project_tile(*codec.sketch, a.get(), b.get());
      gain = mul(load_halves(keys.residual_norms + r, count), broadcast(codec.alpha / static_cast<float>(d)));
    }
    load_words(keys.codes + r * code_bytes, count, code_bytes, words.get());
    centroid_tile(bits, words.get(), d, codec.centroids, a.get());
    const FloatRow scale = load_halves(keys.scales + r, count);
    for (std::size_t j = 0; j < d; ++j) {
      FloatRow value = mul(load(a.get() + j * kTileRows), scale);
      if (codec.prod()) value = mul_add(load(b.get() + j * kTileRows), gain, value);
      store(value, a.get() + j * kTileRows);
    }
    if (!rotated) unrotate_tile(*codec.rotation, a.get(), b.get());
    store_tile(rotated ? a.get() : b.get(), count, d, out + r * d);
  }
}

void score_block(const KeyKernel& codec, const PreparedQueries& queries, ConstKeyBlock keys, std::size_t rows,
                 std::size_t stride, float* out) {
  const std::size_t d = codec.head_dim(), code_bytes = codec.code_bytes();
  const int bits = codec.config.table_bits();
  const TileBuffer tile = make_tile(d);
  const WordBuffer words = make_words(d);
  for (std::size_t r = 0; r < rows; r += kTileRows) {
    const std::size_t count = HWY_MIN(kTileRows, rows - r);
    load_words(keys.codes + r * code_bytes, count, code_bytes, words.get());
    centroid_tile(bits, words.get(), d, codec.centroids, tile.get());
    score_tile(queries.rotated.data(), queries.count, tile.get(), d, load_halves(keys.scales + r, count),
               false, count, stride, out + r);
    if (codec.prod()) {
      load_words(keys.signs + r * (d / 8), count, d / 8, words.get());
      sign_tile(words.get(), d, tile.get());
      const FloatRow gain =
          mul(load_halves(keys.residual_norms + r, count), broadcast(codec.alpha / static_cast<float>(d)));
      score_tile(queries.sketched.data(), queries.count, tile.get(), d, gain, true, count, stride, out + r);
    }
  }
}

void sketch_rows(const Sketch& sketch, const float* in, float* out, std::size_t rows) {
  const std::size_t d = static_cast<std::size_t>(sketch.head_dim());
  const TileBuffer a = make_tile(d), b = make_tile(d);
  for (std::size_t r = 0; r < rows; r += kTileRows) {
    const std::size_t count = HWY_MIN(kTileRows, rows - r);
    load_tile(in + r * d, count, d, a.get());
    sketch_tile(sketch, a.get(), b.get());
    store_tile(b.get(), count, d, out + r * d);
  }
}

// `rotated_residuals`: x holds residuals in the rotated frame instead of keys.
void residual_block(const KeyKernel& codec, const float* x, std::size_t rows, bool rotated_residuals,
                    ResidualProducts* out) {
  const std::size_t d = codec.head_dim();
  const int bits = codec.config.table_bits();
  const TileBuffer a = make_tile(d), b = make_tile(d), c = make_tile(d), r_tile = make_tile(d);
  const WordBuffer words = make_words(d);
  HWY_ALIGN float column[kTileRows];
  for (std::size_t r = 0; r < rows; r += kTileRows) {
    const std::size_t count = HWY_MIN(kTileRows, rows - r);
    const auto put = [&](float ResidualProducts::*field, const FloatRow& row) HWY_ATTR {
      store(row, column);
      for (std::size_t k = 0; k < count; ++k) out[r + k].*field = column[k];
    };
    load_tile(x + r * d, count, d, a.get());
    put(&ResidualProducts::norm, normalise_tile(a.get(), d));
    QuantisedSums sums{broadcast(0), broadcast(0)};
    if (rotated_residuals) {
      for (std::size_t j = 0; j < d; ++j) store(load(a.get() + j * kTileRows), r_tile.get() + j * kTileRows);
      for (std::size_t j = 0; j < d; ++j) store(broadcast(0), c.get() + j * kTileRows);
    } else {
      rotate_tile(*codec.rotation, a.get(), b.get());
      sums =
          quantise_tile(bits, b.get(), d, codec.inner_boundaries, codec.centroids, words.get(), r_tile.get());
      centroid_tile(bits, words.get(), d, codec.centroids, c.get());
    }
    put(&ResidualProducts::yc, sums.yc);
    put(&ResidualProducts::cc, sums.cc);
    for (std::size_t j = 0; j < d; ++j) store(load(r_tile.get() + j * kTileRows), a.get() + j * kTileRows);
    sketch_tile(*codec.sketch, a.get(), b.get());
    pack_signs(b.get(), d, words.get());
    sign_tile(words.get(), d, a.get());
    back_project_tile(*codec.sketch, a.get(), b.get());
    FloatRow residual_norm = dot(r_tile.get(), r_tile.get(), d);
    for (std::size_t i = 0; i < kVectors; ++i) residual_norm.v[i] = hn::Sqrt(residual_norm.v[i]);
    put(&ResidualProducts::residual_norm, residual_norm);
    put(&ResidualProducts::rg, dot(r_tile.get(), b.get(), d));
    put(&ResidualProducts::cg, dot(c.get(), b.get(), d));
    put(&ResidualProducts::gg, dot(b.get(), b.get(), d));
    // A zero vector has no direction; what its arbitrary codes and signs gave must not enter a fit.
    for (std::size_t k = 0; k < count; ++k) {
      if (out[r + k].norm == 0) out[r + k] = {};
    }
  }
}

}  // namespace tq::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include <stdexcept>

#include "core/error.h"

namespace tq {
namespace {
HWY_EXPORT(encode_block);
HWY_EXPORT(decode_block);
HWY_EXPORT(score_block);
HWY_EXPORT(sketch_rows);
HWY_EXPORT(residual_block);

// The block of `keys` that starts at row `begin`.
ConstKeyBlock block_of(const EncodedKeys& keys, const KeyKernel& codec, std::size_t begin) {
  ConstKeyBlock block;
  block.codes = keys.codes.data() + begin * codec.code_bytes();
  block.scales = keys.scales.data() + begin;
  if (codec.prod()) {
    block.signs = keys.signs.data() + begin * (codec.head_dim() / 8);
    block.residual_norms = keys.residual_norms.data() + begin;
  }
  return block;
}

}  // namespace

KeyTables default_key_tables(const KeyConfig& config, int head_dim) {
  validate(config, head_dim);
  return {sphere_codebook(head_dim, config.table_bits()),
          config.mode == KeyMode::prod ? kUnbiasedAlpha : 0.0};
}

KeyCodec::KeyCodec(KeyConfig config, std::shared_ptr<const Rotation> rotation,
                   std::shared_ptr<const Sketch> sketch, KeyTables tables)
    : config_(config),
      rotation_(std::move(rotation)),
      sketch_(std::move(sketch)),
      tables_(std::move(tables)) {
  if (!rotation_) throw std::invalid_argument("KeyCodec needs a rotation");
  validate(config_, head_dim());
  if (config_.mode == KeyMode::prod && (!sketch_ || sketch_->head_dim() != head_dim())) {
    throw std::invalid_argument("KeyCodec in prod mode needs a sketch of the rotation's dimension");
  }
  validate(tables_, "key tables");
  if (tables_.codebook.bits != config_.table_bits()) {
    throw InputError("key tables: {} bits, but {} needs {}", tables_.codebook.bits, describe(config_),
                     config_.table_bits());
  }
  if (config_.mode == KeyMode::mse && tables_.qjl_scale != 0) {
    throw InputError("key tables: qjl_scale is {}, but {} has no sign bit", tables_.qjl_scale,
                     describe(config_));
  }
  for (const double c : tables_.codebook.centroids) centroids_.push_back(static_cast<float>(c));
  const auto& boundaries = tables_.codebook.boundaries;
  for (std::size_t i = 1; i + 1 < boundaries.size(); ++i)
    inner_boundaries_.push_back(static_cast<float>(boundaries[i]));
}

KeyKernel KeyCodec::kernel() const {
  return {config_,           rotation_.get(),          sketch_.get(),
          centroids_.data(), inner_boundaries_.data(), static_cast<float>(tables_.qjl_scale)};
}

void KeyCodec::encode(const float* x, std::size_t rows, EncodedKeys& out) const {
  const KeyKernel codec = kernel();
  const std::size_t d = codec.head_dim();
  out.rows = rows;
  out.codes.resize(rows * codec.code_bytes());
  out.scales.resize(rows);
  out.signs.resize(codec.prod() ? rows * (d / 8) : 0);
  out.residual_norms.resize(codec.prod() ? rows : 0);
  parallel_blocks(rows, [&](std::size_t begin, std::size_t end) {
    const KeyBlock block{out.codes.data() + begin * codec.code_bytes(), out.scales.data() + begin,
                         codec.prod() ? out.signs.data() + begin * (d / 8) : nullptr,
                         codec.prod() ? out.residual_norms.data() + begin : nullptr};
    HWY_DYNAMIC_DISPATCH(encode_block)(codec, x + begin * d, end - begin, block);
  });
}

void KeyCodec::decode_rows(const EncodedKeys& keys, std::size_t begin, std::size_t end, bool rotated,
                           float* out) const {
  const KeyKernel codec = kernel();
  HWY_DYNAMIC_DISPATCH(decode_block)(codec, block_of(keys, codec, begin), end - begin, rotated, out);
}

void KeyCodec::encode_block(const float* x, std::size_t rows, const KeyBlock& out) const {
  HWY_DYNAMIC_DISPATCH(encode_block)(kernel(), x, rows, out);
}

void KeyCodec::decode_block(const ConstKeyBlock& keys, std::size_t rows, bool rotated, float* out) const {
  HWY_DYNAMIC_DISPATCH(decode_block)(kernel(), keys, rows, rotated, out);
}

void KeyCodec::score_block(const PreparedQueries& queries, const ConstKeyBlock& keys, std::size_t rows,
                           std::size_t stride, float* out) const {
  HWY_DYNAMIC_DISPATCH(score_block)(kernel(), queries, keys, rows, stride, out);
}

void KeyCodec::decode(const EncodedKeys& keys, float* out) const {
  const std::size_t d = static_cast<std::size_t>(head_dim());
  parallel_blocks(keys.rows, [&](std::size_t begin, std::size_t end) {
    decode_rows(keys, begin, end, false, out + begin * d);
  });
}

PreparedQueries KeyCodec::prepare(const float* queries, std::size_t count) const {
  const std::size_t d = static_cast<std::size_t>(head_dim());
  PreparedQueries prepared;
  prepared.count = count;
  prepared.rotated.resize(count * d);
  rotation_->forward(queries, prepared.rotated.data(), count);
  if (config_.mode == KeyMode::prod) {
    prepared.sketched.resize(count * d);
    parallel_blocks(count, [&](std::size_t begin, std::size_t end) {
      HWY_DYNAMIC_DISPATCH(sketch_rows)
      (*sketch_, prepared.rotated.data() + begin * d, prepared.sketched.data() + begin * d, end - begin);
    });
  }
  return prepared;
}

void KeyCodec::scores(const PreparedQueries& queries, const EncodedKeys& keys, float* out) const {
  const KeyKernel codec = kernel();
  parallel_blocks(keys.rows, [&](std::size_t begin, std::size_t end) {
    HWY_DYNAMIC_DISPATCH(score_block)
    (codec, queries, block_of(keys, codec, begin), end - begin, keys.rows, out + begin);
  });
}

void KeyCodec::residual_products(const float* x, std::size_t rows, ResidualProducts* out) const {
  if (config_.mode != KeyMode::prod) throw std::invalid_argument("residual_products is for prod keys");
  const KeyKernel codec = kernel();
  parallel_blocks(rows, [&](std::size_t begin, std::size_t end) {
    HWY_DYNAMIC_DISPATCH(residual_block)
    (codec, x + begin * codec.head_dim(), end - begin, false, out + begin);
  });
}

void KeyCodec::residual_products_rotated(const float* residuals, std::size_t rows,
                                         ResidualProducts* out) const {
  if (config_.mode != KeyMode::prod)
    throw std::invalid_argument("residual_products_rotated is for prod keys");
  const KeyKernel codec = kernel();
  parallel_blocks(rows, [&](std::size_t begin, std::size_t end) {
    HWY_DYNAMIC_DISPATCH(residual_block)
    (codec, residuals + begin * codec.head_dim(), end - begin, true, out + begin);
  });
}

}  // namespace tq
#endif
