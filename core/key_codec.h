#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "core/codebook.h"
#include "core/codec_config.h"
#include "core/rotation.h"
#include "core/sketch.h"

namespace tq {

struct KeyKernel;  // the SIMD loops' view of a codec

// Encoded vectors, one row each, packed by core/packing.h. Scalars are binary16.
struct EncodedKeys {
  std::size_t rows = 0;
  std::vector<std::uint8_t> codes;            // rows x d table_bits / 8
  std::vector<std::uint16_t> scales;          // rows: g (mse) or ||x|| (prod)
  std::vector<std::uint8_t> signs;            // prod: rows x d / 8; bit 1 is +1
  std::vector<std::uint16_t> residual_norms;  // prod: rows, ||r||
};

// Consecutive encoded rows wherever they lie, laid out as in EncodedKeys. In mse mode signs and
// residual_norms are null.
struct KeyBlock {
  std::uint8_t* codes = nullptr;
  std::uint16_t* scales = nullptr;
  std::uint8_t* signs = nullptr;
  std::uint16_t* residual_norms = nullptr;
};
struct ConstKeyBlock {
  ConstKeyBlock() = default;
  ConstKeyBlock(const KeyBlock& block)
      : codes(block.codes), scales(block.scales), signs(block.signs), residual_norms(block.residual_norms) {}

  const std::uint8_t* codes = nullptr;
  const std::uint16_t* scales = nullptr;
  const std::uint8_t* signs = nullptr;
  const std::uint16_t* residual_norms = nullptr;
};

// Queries as scoring wants them: rotated (and sketched, in prod mode) once, for any number of keys.
struct PreparedQueries {
  std::size_t count = 0;
  std::vector<float> rotated;   // count x d: Pi q
  std::vector<float> sketched;  // prod: count x d: S Pi q
};

// What a key contributes to the fit of alpha, in units of its own norm: y = Pi x / ||x||, c its centroids, r
// = y - c, g = S^T sign(S r). Cosines and least squares for any alpha follow from these inner products.
struct ResidualProducts {
  float norm;           // ||x||
  float yc, cc;         // <y,c>, ||c||^2
  float residual_norm;  // ||r||
  float rg, cg, gg;     // <r,g>, <c,g>, ||g||^2
};

// The tables that need no data: sphere_codebook and, in prod mode, the unbiased alpha.
KeyTables default_key_tables(const KeyConfig& config, int head_dim);

// TurboQuant keys (arXiv:2504.19874, algorithms 1 and 2; scale rules and alpha: see README). Also used for
// values in the `rotated` mode. Immutable; safe to share between threads. All methods run on OpenMP threads
// over rows, and their results depend on neither the thread count nor the SIMD target.
class KeyCodec {
 public:
  // Throws UsageError for a config that does not fit d, InputError for tables that do not fit the config, and
  // std::invalid_argument when prod comes without a sketch or dimensions differ.
  KeyCodec(KeyConfig config, std::shared_ptr<const Rotation> rotation, std::shared_ptr<const Sketch> sketch,
           KeyTables tables);

  const KeyConfig& config() const { return config_; }
  const KeyTables& tables() const { return tables_; }
  const Rotation& rotation() const { return *rotation_; }
  const Sketch* sketch() const { return sketch_.get(); }  // not null in prod mode
  int head_dim() const { return rotation_->head_dim(); }

  // x: rows x d, float32. A zero vector is stored with scale 0 and decodes to zeros; a NaN stays in its own
  // row. Scales beyond binary16 saturate at 65504.
  void encode(const float* x, std::size_t rows, EncodedKeys& out) const;
  // out: rows x d.
  void decode(const EncodedKeys& keys, float* out) const;
  // Rows [begin, end) on the calling thread, in the frame of x or in the rotated one (Pi x^).
  void decode_rows(const EncodedKeys& keys, std::size_t begin, std::size_t end, bool rotated,
                   float* out) const;

  // encode(), decode_rows() and scores() of rows that lie in a block, on the calling thread: the same bits.
  void encode_block(const float* x, std::size_t rows, const KeyBlock& out) const;
  void decode_block(const ConstKeyBlock& keys, std::size_t rows, bool rotated, float* out) const;
  // out[q * stride + t] = <query q, x^_t>.
  void score_block(const PreparedQueries& queries, const ConstKeyBlock& keys, std::size_t rows,
                   std::size_t stride, float* out) const;

  // queries: count x d.
  PreparedQueries prepare(const float* queries, std::size_t count) const;
  // out[q * keys.rows + t] = <query q, x^_t>, straight from the codes: the keys are never unrotated.
  void scores(const PreparedQueries& queries, const EncodedKeys& keys, float* out) const;

  // prod only. One entry a row of x; rows of norm 0 give zeros.
  void residual_products(const float* x, std::size_t rows, ResidualProducts* out) const;
  // The same for residuals that are already in the rotated frame (a capture's k_residual): norm is ||r||, the
  // residual is taken relative to it, and yc, cc, cg are 0.
  void residual_products_rotated(const float* residuals, std::size_t rows, ResidualProducts* out) const;

 private:
  KeyKernel kernel() const;

  KeyConfig config_;
  std::shared_ptr<const Rotation> rotation_;
  std::shared_ptr<const Sketch> sketch_;
  KeyTables tables_;
  std::vector<float> centroids_;         // 2^b, as float32
  std::vector<float> inner_boundaries_;  // 2^b - 1
};

}  // namespace tq
