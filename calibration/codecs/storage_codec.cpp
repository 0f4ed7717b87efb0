#include "calibration/codecs/storage_codec.h"

#include <algorithm>
#include <vector>

#include "core/attention.h"
#include "core/error.h"

namespace tq {
namespace {

// Reconstructions take the place of codes.
class DecodedKeys : public StoredKeys {
 public:
  DecodedKeys(const ValueBackend& codec, int head_dim, const float* keys, std::size_t rows)
      : rows_(rows), d_(static_cast<std::size_t>(head_dim)), decoded_(rows * d_) {
    codec.encode_decode(keys, rows, decoded_.data());
  }
  void decode(float* out) const override { std::copy(decoded_.begin(), decoded_.end(), out); }
  void scores(const float* queries, std::size_t count, float* out) const override {
    dense_scores(queries, count, decoded_.data(), rows_, d_, out);
  }

 private:
  std::size_t rows_, d_;
  std::vector<float> decoded_;
};

class StorageKeys : public KeyBackend {
 public:
  StorageKeys(std::shared_ptr<const ValueBackend> codec, int head_dim)
      : codec_(std::move(codec)), head_dim_(head_dim) {}
  std::unique_ptr<StoredKeys> encode(const float* keys, std::size_t rows) const override {
    return std::make_unique<DecodedKeys>(*codec_, head_dim_, keys, rows);
  }

 private:
  std::shared_ptr<const ValueBackend> codec_;
  int head_dim_;
};

}  // namespace

void validate(const StorageConfig& config, int head_dim) {
  const StorageCodec& codec = *config.codec;
  codec.validate(head_dim);
  const std::span<const int> bits = codec.bits();
  if (!bits.empty() && std::find(bits.begin(), bits.end(), config.bits) == bits.end()) {
    throw UsageError("{} bits are not supported: {} takes {}", config.bits, codec.name(),
                     fmt::join(bits, ", "));
  }
}

int bytes_per_token(const StorageConfig& config, int head_dim) {
  return config.codec->bytes_per_token(config.bits, head_dim);
}

std::string describe(const StorageConfig& config) {
  std::string text(config.codec->name());
  if (!config.codec->bits().empty()) text += fmt::format("{}", config.bits);
  if (config.codec->rotates()) text += fmt::format("-{}", to_string(config.scale));
  return text;
}

std::shared_ptr<const ValueBackend> storage_values(const StorageConfig& config, int head_dim,
                                                   std::shared_ptr<const Rotation> rotation) {
  validate(config, head_dim);
  return config.codec->make(config, head_dim, std::move(rotation));
}

std::shared_ptr<const KeyBackend> storage_keys(const StorageConfig& config, int head_dim,
                                               std::shared_ptr<const Rotation> rotation) {
  return std::make_shared<StorageKeys>(storage_values(config, head_dim, std::move(rotation)), head_dim);
}

}  // namespace tq
