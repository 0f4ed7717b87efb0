#pragma once

#include "calibration/codecs/storage_codec.h"

namespace tq {

// What others store a KV cache in, to compare codecs with: each quantises a vector by itself, without
// rotation, tables or calibration. Scales and minima are binary16. Large values saturate. A NaN makes
// everything NaN that shares its scale, or itself alone where the format has a NaN.
class BaselineCodec : public StorageCodec {
 public:
  // What storing leaves of x; both rows x d.
  using Store = void (*)(const float* x, std::size_t rows, std::size_t d, float* out);

  // `bytes`: of a vector of d coordinates; `block`: coordinates that share a scale and so must divide d.
  BaselineCodec(std::string_view name, int (*bytes)(int d), Store store, int block = 1)
      : name_(name), bytes_(bytes), store_(store), block_(block) {}

  std::string_view name() const override { return name_; }
  bool baseline() const override { return true; }
  void validate(int head_dim) const override;
  int bytes_per_token(int, int head_dim) const override { return bytes_(head_dim); }
  std::shared_ptr<const ValueBackend> make(const StorageConfig& config, int head_dim,
                                           std::shared_ptr<const Rotation> rotation) const override;

 private:
  std::string_view name_;
  int (*bytes_)(int d);
  Store store_;
  int block_;
};

// The first of the values with the largest magnitude, with its sign; NaNs do not count.
float largest_magnitude(const float* x, std::size_t count);
bool holds_nan(const float* x, std::size_t count);
// To binary16 and back, saturating.
float rounded_to_half(float value);

}  // namespace tq
