#include "calibration/channel_equalisation.h"

#include <cmath>

#include "core/half.h"

namespace tq {
namespace {

// x: rows x d, every coordinate times its channel's factor.
void multiply_channels(const float* x, const std::vector<float>& factors, std::size_t rows, float* out) {
  const std::size_t d = factors.size();
  for (std::size_t row = 0; row < rows; ++row) {
    for (std::size_t j = 0; j < d; ++j) out[row * d + j] = x[row * d + j] * factors[j];
  }
}

class EqualisedStored : public StoredVectors {
 public:
  EqualisedStored(std::unique_ptr<StoredVectors> stored, const std::vector<float>& scales, std::size_t rows)
      : stored_(std::move(stored)), scales_(scales), rows_(rows) {}
  void decode(float* out) const override {
    stored_->decode(out);
    multiply_channels(out, scales_, rows_, out);
  }

 private:
  std::unique_ptr<StoredVectors> stored_;
  const std::vector<float>& scales_;
  std::size_t rows_;
};

class EqualisedValues : public ValueBackend {
 public:
  EqualisedValues(std::shared_ptr<const ValueBackend> codec, std::vector<float> scales)
      : codec_(std::move(codec)), scales_(std::move(scales)) {
    for (const float scale : scales_) reciprocals_.push_back(1 / scale);
  }
  void encode_decode(const float* values, std::size_t rows, float* out) const override {
    codec_->encode_decode(equalised(values, rows).data(), rows, out);
    multiply_channels(out, scales_, rows, out);
  }
  std::unique_ptr<StoredVectors> encode(const float* values, std::size_t rows) const override {
    std::unique_ptr<StoredVectors> stored = codec_->encode(equalised(values, rows).data(), rows);
    if (!stored) return nullptr;
    return std::make_unique<EqualisedStored>(std::move(stored), scales_, rows);
  }

 private:
  std::vector<float> equalised(const float* values, std::size_t rows) const {
    std::vector<float> scaled(rows * scales_.size());
    multiply_channels(values, reciprocals_, rows, scaled.data());
    return scaled;
  }

  std::shared_ptr<const ValueBackend> codec_;
  std::vector<float> scales_, reciprocals_;
};

}  // namespace

std::vector<std::vector<float>> fit_channel_scales(LayerStream& stream, int kv_heads, int head_dim) {
  const std::size_t heads = static_cast<std::size_t>(kv_heads), d = static_cast<std::size_t>(head_dim);
  std::vector<std::vector<double>> squares(heads, std::vector<double>(d, 0.0));
  std::size_t tokens = 0;
  stream.for_each([&](const TokenBlock& block) {
    for (std::size_t head = 0; head < heads; ++head) {
      const float* row = block.v.data() + head * block.count * d;
      for (std::size_t t = 0; t < block.count; ++t, row += d) {
        for (std::size_t j = 0; j < d; ++j) squares[head][j] += static_cast<double>(row[j]) * row[j];
      }
    }
    tokens += block.count;
  });
  std::vector<std::vector<float>> scales(heads);
  for (std::size_t head = 0; head < heads; ++head) {
    for (const double sum : squares[head]) {
      const double mean_square = tokens > 0 ? sum / static_cast<double>(tokens) : 0;
      const float stored = half_to_float(float_to_half_saturate(static_cast<float>(std::sqrt(mean_square))));
      scales[head].push_back(stored > 0 ? stored : 1.0f);
    }
  }
  return scales;
}

std::shared_ptr<const ValueBackend> equalised_values(std::shared_ptr<const ValueBackend> codec,
                                                     std::vector<float> scales) {
  return std::make_shared<EqualisedValues>(std::move(codec), std::move(scales));
}

}  // namespace tq
