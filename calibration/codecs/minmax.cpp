// minmax8, minmax4: one minimum and one scale a vector, that is group values whose group is the whole vector.
#include <algorithm>
#include <limits>

#include "calibration/codecs/baseline_codec.h"
#include "core/value_codec.h"

namespace tq {

namespace {

template <int Bits>
void store(const float* x, std::size_t rows, std::size_t d, float* out) {
  const int head_dim = static_cast<int>(d);
  const GroupCodec codec({.mode = ValueMode::group, .bits = Bits, .group_size = head_dim}, head_dim);
  EncodedGroups encoded;
  codec.encode(x, rows, encoded);
  codec.decode_rows(encoded, 0, rows, out);
  for (std::size_t row = 0; row < rows; ++row) {
    if (holds_nan(x + row * d, d)) std::fill_n(out + row * d, d, std::numeric_limits<float>::quiet_NaN());
  }
}

}  // namespace

const StorageCodec& minmax8_codec() {
  static const BaselineCodec codec(
      "minmax8", [](int d) { return d + 4; }, store<8>);
  return codec;
}

const StorageCodec& minmax4_codec() {
  static const BaselineCodec codec(
      "minmax4", [](int d) { return d / 2 + 4; }, store<4>);
  return codec;
}

}  // namespace tq
