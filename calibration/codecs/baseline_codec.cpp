#include "calibration/codecs/baseline_codec.h"

#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "core/half.h"

namespace tq {
namespace {

class BaselineBackend : public ValueBackend {
 public:
  BaselineBackend(BaselineCodec::Store store, int head_dim)
      : store_(store), d_(static_cast<std::size_t>(head_dim)) {}
  void encode_decode(const float* values, std::size_t rows, float* out) const override {
    store_(values, rows, d_, out);
  }

 private:
  BaselineCodec::Store store_;
  std::size_t d_;
};

}  // namespace

void BaselineCodec::validate(int head_dim) const {
  validate_head_dim(head_dim);
  if (head_dim % block_ != 0) {
    throw UsageError("{} stores blocks of {} coordinates, which do not divide head_dim {}", name_, block_,
                     head_dim);
  }
}

std::shared_ptr<const ValueBackend> BaselineCodec::make(const StorageConfig&, int head_dim,
                                                        std::shared_ptr<const Rotation>) const {
  return std::make_shared<BaselineBackend>(store_, head_dim);
}

float largest_magnitude(const float* x, std::size_t count) {
  float found = 0;
  for (std::size_t i = 0; i < count; ++i) {
    if (std::fabs(x[i]) > std::fabs(found)) found = x[i];
  }
  return found;
}

bool holds_nan(const float* x, std::size_t count) {
  return std::any_of(x, x + count, [](float value) { return std::isnan(value); });
}

float rounded_to_half(float value) { return half_to_float(float_to_half_saturate(value)); }

}  // namespace tq
