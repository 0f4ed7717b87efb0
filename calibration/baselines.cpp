#include "calibration/baselines.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "core/attention.h"
#include "core/error.h"
#include "core/half.h"
#include "core/value_codec.h"

namespace tq {
namespace {

constexpr std::size_t kBlock = 32;  // of q8_0 and q4_0
constexpr float kLargestE4m3 = 448;
constexpr float kLargestHalf = 65504;
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

float rounded_to_half(float value) { return half_to_float(float_to_half_saturate(value)); }

bool holds_nan(const float* x, std::size_t count) {
  return std::any_of(x, x + count, [](float value) { return std::isnan(value); });
}

// The first of those with the largest magnitude, with its sign; NaNs do not count.
float largest(const float* x, std::size_t count) {
  float found = 0;
  for (std::size_t i = 0; i < count; ++i) {
    if (std::fabs(x[i]) > std::fabs(found)) found = x[i];
  }
  return found;
}

// To nearest even, saturating; NaN stays NaN.
float rounded_to_e4m3(float value) {
  if (std::isnan(value)) return value;
  constexpr int kMantissaBits = 3, kLeastExponent = -6;  // of what is not subnormal
  const float magnitude = std::min(std::fabs(value), kLargestE4m3);
  if (magnitude == 0) return 0;
  const int exponent = std::max(std::ilogb(magnitude), kLeastExponent) - kMantissaBits;
  const float code = std::nearbyint(std::ldexp(magnitude, -exponent));
  return std::copysign(std::ldexp(code, exponent), value);
}

void fp16_vector(const float* x, std::size_t d, float* out) {
  std::transform(x, x + d, out, rounded_to_half);
}

void fp8_vector(const float* x, std::size_t d, float* out) {
  const float scale = rounded_to_half(std::fabs(largest(x, d)) / kLargestE4m3);
  for (std::size_t j = 0; j < d; ++j) {
    const float code = scale > 0 || std::isnan(x[j]) ? rounded_to_e4m3(x[j] / scale) : 0;
    out[j] = std::isnan(code) ? kNan : code * scale;
  }
}

// quantize_row_q8_0_ref and quantize_row_q4_0_ref of llama.cpp, whose codes come from the scale before it is
// rounded, and then the decoding with the rounded scale. Theirs leave open what happens to a scale that
// binary16 cannot hold; here it saturates, or is zero and so is the block. `code` turns x / scale into a code
// less its zero point.
template <typename Code>
void scaled_block(const float* x, float scale, const Code& code, float* out) {
  scale = std::clamp(scale, -kLargestHalf, kLargestHalf);
  const float stored = rounded_to_half(scale);
  const bool nan = holds_nan(x, kBlock);
  if (nan || stored == 0) {
    std::fill_n(out, kBlock, nan ? kNan : 0);
    return;
  }
  const float inverse = 1 / scale;
  for (std::size_t j = 0; j < kBlock; ++j) out[j] = code(x[j] * inverse) * stored;
}

void q8_0_block(const float* x, float* out) {
  scaled_block(
      x, std::fabs(largest(x, kBlock)) / 127,
      [](float ratio) { return std::clamp(std::round(ratio), -127.0f, 127.0f); }, out);
}

void q4_0_block(const float* x, float* out) {
  scaled_block(
      x, largest(x, kBlock) / -8,
      [](float ratio) { return std::trunc(std::clamp(ratio + 8.5f, 0.0f, 15.0f)) - 8; }, out);
}

void minmax(int bits, const float* x, std::size_t rows, int head_dim, float* out) {
  const std::size_t d = static_cast<std::size_t>(head_dim);
  const GroupCodec codec({.mode = ValueMode::group, .bits = bits, .group_size = head_dim}, head_dim);
  EncodedGroups encoded;
  codec.encode(x, rows, encoded);
  codec.decode_rows(encoded, 0, rows, out);
  for (std::size_t row = 0; row < rows; ++row) {
    if (holds_nan(x + row * d, d)) std::fill_n(out + row * d, d, kNan);
  }
}

// Reconstructions take the place of codes: scores of what baselines store are those of what they decode to.
class BaselineStoredKeys : public StoredKeys {
 public:
  BaselineStoredKeys(Baseline baseline, int head_dim, const float* keys, std::size_t rows)
      : rows_(rows), d_(static_cast<std::size_t>(head_dim)), decoded_(rows * d_) {
    encode_decode(baseline, keys, rows, head_dim, decoded_.data());
  }
  void decode(float* out) const override { std::copy(decoded_.begin(), decoded_.end(), out); }
  void scores(const float* queries, std::size_t count, float* out) const override {
    dense_scores(queries, count, decoded_.data(), rows_, d_, out);
  }

 private:
  std::size_t rows_, d_;
  std::vector<float> decoded_;
};

class BaselineKeys : public KeyBackend {
 public:
  BaselineKeys(Baseline baseline, int head_dim) : baseline_(baseline), head_dim_(head_dim) {
    validate(baseline, head_dim);
  }
  std::unique_ptr<StoredKeys> encode(const float* keys, std::size_t rows) const override {
    return std::make_unique<BaselineStoredKeys>(baseline_, head_dim_, keys, rows);
  }

 private:
  Baseline baseline_;
  int head_dim_;
};

class BaselineValues : public ValueBackend {
 public:
  BaselineValues(Baseline baseline, int head_dim) : baseline_(baseline), head_dim_(head_dim) {
    validate(baseline, head_dim);
  }
  void encode_decode(const float* values, std::size_t rows, float* out) const override {
    tq::encode_decode(baseline_, values, rows, head_dim_, out);
  }

 private:
  Baseline baseline_;
  int head_dim_;
};

}  // namespace

std::string_view to_string(Baseline baseline) {
  static constexpr std::array<std::string_view, kBaselines.size()> kNames{"fp16",    "fp8",  "minmax8",
                                                                          "minmax4", "q8_0", "q4_0"};
  return kNames[static_cast<std::size_t>(baseline)];
}

std::optional<Baseline> baseline_named(std::string_view name) {
  for (const Baseline baseline : kBaselines) {
    if (to_string(baseline) == name) return baseline;
  }
  return std::nullopt;
}

void validate(Baseline baseline, int head_dim) {
  validate_head_dim(head_dim);
  const bool blocks = baseline == Baseline::q8_0 || baseline == Baseline::q4_0;
  if (blocks && head_dim % static_cast<int>(kBlock) != 0) {
    throw UsageError("{} stores blocks of {} coordinates, which do not divide head_dim {}",
                     to_string(baseline), kBlock, head_dim);
  }
}

int bytes_per_token(Baseline baseline, int head_dim) {
  const int blocks = head_dim / static_cast<int>(kBlock);
  switch (baseline) {
    case Baseline::fp16:
      return 2 * head_dim;
    case Baseline::fp8:
      return head_dim + 2;
    case Baseline::minmax8:
      return head_dim + 4;
    case Baseline::minmax4:
      return head_dim / 2 + 4;
    case Baseline::q8_0:
      return 34 * blocks;
    case Baseline::q4_0:
      return 18 * blocks;
  }
  return 0;
}

void encode_decode(Baseline baseline, const float* x, std::size_t rows, int head_dim, float* out) {
  const std::size_t d = static_cast<std::size_t>(head_dim);
  const auto each = [&](std::size_t size, const auto& store) {
    for (std::size_t at = 0; at < rows * d; at += size) store(x + at, out + at);
  };
  switch (baseline) {
    case Baseline::fp16:
      return each(d, [d](const float* from, float* to) { fp16_vector(from, d, to); });
    case Baseline::fp8:
      return each(d, [d](const float* from, float* to) { fp8_vector(from, d, to); });
    case Baseline::minmax8:
      return minmax(8, x, rows, head_dim, out);
    case Baseline::minmax4:
      return minmax(4, x, rows, head_dim, out);
    case Baseline::q8_0:
      return each(kBlock, q8_0_block);
    case Baseline::q4_0:
      return each(kBlock, q4_0_block);
  }
}

std::shared_ptr<const KeyBackend> baseline_keys(Baseline baseline, int head_dim) {
  return std::make_shared<BaselineKeys>(baseline, head_dim);
}

std::shared_ptr<const ValueBackend> baseline_values(Baseline baseline, int head_dim) {
  return std::make_shared<BaselineValues>(baseline, head_dim);
}

}  // namespace tq
