#include "experiments/bench/code_differences.h"

#include <algorithm>
#include <cstdlib>
#include <variant>
#include <vector>

#include "core/packing.h"

namespace tq::bench {
namespace {

// Of the GPU tests' 8.8 million codes three differ. A scale counts as a code: one wrong scale in a few
// thousand vectors fails.
constexpr double kLargestShare = 1e-5;

}  // namespace

void CodeDifferences::add_codes(const std::uint8_t* is, const std::uint8_t* should, std::size_t rows,
                                std::size_t d, int bits) {
  const std::size_t row_bytes = packed_bytes(d, bits);
  std::vector<std::uint8_t> a(d), b(d);
  compared_ += rows * d;
  for (std::size_t r = 0; r < rows; ++r) {
    if (std::equal(is + r * row_bytes, is + (r + 1) * row_bytes, should + r * row_bytes)) continue;
    unpack_codes(is + r * row_bytes, d, bits, a.data());
    unpack_codes(should + r * row_bytes, d, bits, b.data());
    for (std::size_t j = 0; j < d; ++j) differ_ += a[j] != b[j] ? 1 : 0;
  }
}

void CodeDifferences::add_scalar(std::uint16_t is, std::uint16_t should) {
  if (std::abs(static_cast<int>(is) - static_cast<int>(should)) > 1) ++differ_;
}

void CodeDifferences::add(const KeyCodec& codec, const ConstKeyBlock& is, const ConstKeyBlock& should,
                          std::size_t rows) {
  const std::size_t d = static_cast<std::size_t>(codec.head_dim());
  const int bits = codec.config().table_bits();
  const std::size_t row_bytes = packed_bytes(d, bits), sign_bytes = packed_bytes(d, 1);
  for (std::size_t r = 0; r < rows; ++r) {
    const std::size_t before = differ_;
    add_codes(is.codes + r * row_bytes, should.codes + r * row_bytes, 1, d, bits);
    if (differ_ != before) continue;  // scales, residuals and their signs follow the codes
    add_scalar(is.scales[r], should.scales[r]);
    if (codec.config().mode != KeyMode::prod) continue;
    add_scalar(is.residual_norms[r], should.residual_norms[r]);
    add_codes(is.signs + r * sign_bytes, should.signs + r * sign_bytes, 1, d, 1);
  }
}

void CodeDifferences::add(const ValueCodec& codec, const ConstValueBlock& is, const ConstValueBlock& should,
                          std::size_t rows) {
  if (const KeyCodec* rotated = codec.rotated()) {
    return add(*rotated, std::get<ConstKeyBlock>(is), std::get<ConstKeyBlock>(should), rows);
  }
  const ConstGroupBlock &a = std::get<ConstGroupBlock>(is), &b = std::get<ConstGroupBlock>(should);
  const std::size_t d = static_cast<std::size_t>(codec.head_dim()),
                    scalars = rows * d / static_cast<std::size_t>(codec.config().group_size);
  add_codes(a.codes, b.codes, rows, d, codec.config().bits);
  for (std::size_t i = 0; i < scalars; ++i) {
    add_scalar(a.zeros[i], b.zeros[i]);
    add_scalar(a.scales[i], b.scales[i]);
  }
}

void CodeDifferences::add_exact(const float* is, const float* should, std::size_t count) {
  compared_ += count;
  for (std::size_t i = 0; i < count; ++i) differ_ += is[i] == should[i] ? 0 : 1;
}

Check CodeDifferences::check() const {
  return {"codes_that_differ", static_cast<double>(differ_) / static_cast<double>(compared_), kLargestShare,
          compared_};
}

}  // namespace tq::bench
