#include "calibration/codecs/trellis.h"

#include <array>
#include <cmath>

#include "calibration/codecs/storage_codec.h"
#include "core/half.h"
#include "core/packing.h"
#include "core/tile.h"

namespace tq {

TrellisCodec::TrellisCodec(int bits, ScaleRule scale, std::shared_ptr<const Rotation> rotation)
    : scale_(scale),
      rotation_(std::move(rotation)),
      trellis_(bits, kWindowBits, gaussian_levels(bits, kWindowBits)) {}

void TrellisCodec::encode(const float* x, std::size_t rows, EncodedTrellis& out) const {
  const std::size_t d = static_cast<std::size_t>(rotation_->head_dim());
  const std::size_t code_bytes = packed_bytes(d, trellis_.symbol_bits());
  out.rows = rows;
  out.codes.resize(rows * code_bytes);
  out.scales.resize(rows);
  std::vector<float> directions(rows * d), norms(rows);
  rotation_->forward_unit(x, directions.data(), norms.data(), rows);
  const float root = std::sqrt(static_cast<float>(d));
  for (float& y : directions) y *= root;  // to N(0, 1), nearly
  parallel_blocks(rows, [&](std::size_t begin, std::size_t end) {
    TrellisSearch search(trellis_, d);
    std::vector<std::uint8_t> symbols(d);
    std::vector<std::uint16_t> windows(d);
    for (std::size_t row = begin; row < end; ++row) {
      const float* y = directions.data() + row * d;
      search.near_ring(y, d, symbols.data());
      pack_codes(symbols.data(), d, trellis_.symbol_bits(), out.codes.data() + row * code_bytes);
      double factor = 1;
      if (scale_ != ScaleRule::norm) {
        trellis_.windows_of_ring(symbols.data(), d, windows.data());
        double yc = 0, cc = 0;
        for (std::size_t t = 0; t < d; ++t) {
          const double c = trellis_.levels()[windows[t]];
          yc += static_cast<double>(y[t]) * c;
          cc += c * c;
        }
        factor = scale_ == ScaleRule::nc ? std::sqrt(static_cast<double>(d) / cc) : yc / cc;
      }
      out.scales[row] = float_to_half_saturate(norms[row] * static_cast<float>(factor));
    }
  });
}

void TrellisCodec::decode(const EncodedTrellis& encoded, float* out) const {
  const std::size_t d = static_cast<std::size_t>(rotation_->head_dim());
  const std::size_t code_bytes = packed_bytes(d, trellis_.symbol_bits());
  const float root = std::sqrt(static_cast<float>(d));
  std::vector<float> rotated(encoded.rows * d);
  parallel_blocks(encoded.rows, [&](std::size_t begin, std::size_t end) {
    std::vector<std::uint8_t> symbols(d);
    std::vector<std::uint16_t> windows(d);
    for (std::size_t row = begin; row < end; ++row) {
      unpack_codes(encoded.codes.data() + row * code_bytes, d, trellis_.symbol_bits(), symbols.data());
      trellis_.windows_of_ring(symbols.data(), d, windows.data());
      const float scale = half_to_float(encoded.scales[row]) / root;
      for (std::size_t t = 0; t < d; ++t) rotated[row * d + t] = scale * trellis_.levels()[windows[t]];
    }
  });
  rotation_->inverse(rotated.data(), out, encoded.rows);
}

namespace {

class TrellisBackend : public ValueBackend {
 public:
  explicit TrellisBackend(TrellisCodec codec) : codec_(std::move(codec)) {}
  void encode_decode(const float* values, std::size_t rows, float* out) const override {
    EncodedTrellis encoded;
    codec_.encode(values, rows, encoded);
    codec_.decode(encoded, out);
  }

 private:
  TrellisCodec codec_;
};

class TrellisStorage : public StorageCodec {
 public:
  std::string_view name() const override { return "trellis"; }
  std::span<const int> bits() const override {
    static constexpr std::array<int, 4> kBits{1, 2, 3, 4};
    return kBits;
  }
  bool rotates() const override { return true; }
  int bytes_per_token(int bits, int head_dim) const override { return head_dim * bits / 8 + 2; }
  std::shared_ptr<const ValueBackend> make(const StorageConfig& config, int,
                                           std::shared_ptr<const Rotation> rotation) const override {
    return std::make_shared<TrellisBackend>(TrellisCodec(config.bits, config.scale, std::move(rotation)));
  }
};

}  // namespace

const StorageCodec& trellis_codec() {
  static const TrellisStorage codec;
  return codec;
}

}  // namespace tq
