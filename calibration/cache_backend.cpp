#include "calibration/cache_backend.h"

#include "core/key_codec.h"
#include "core/value_codec.h"

namespace tq {
namespace {

class HostStoredKeys : public StoredKeys {
 public:
  HostStoredKeys(const KeyCodec& codec, const float* keys, std::size_t rows) : codec_(codec) {
    codec.encode(keys, rows, encoded_);
  }
  void decode(float* out) const override { codec_.decode(encoded_, out); }
  void scores(const float* queries, std::size_t count, float* out) const override {
    codec_.scores(codec_.prepare(queries, count), encoded_, out);
  }

 private:
  const KeyCodec& codec_;
  EncodedKeys encoded_;
};

class HostKeys : public KeyBackend {
 public:
  explicit HostKeys(KeyCodec codec) : codec_(std::move(codec)) {}
  std::unique_ptr<StoredKeys> encode(const float* keys, std::size_t rows) const override {
    return std::make_unique<HostStoredKeys>(codec_, keys, rows);
  }
  bool decodes_apart() const override { return true; }

 private:
  KeyCodec codec_;
};

class HostStoredValues : public StoredVectors {
 public:
  HostStoredValues(const ValueCodec& codec, const float* values, std::size_t rows) : codec_(codec) {
    codec.encode(values, rows, encoded_);
  }
  void decode(float* out) const override { codec_.decode(encoded_, out); }

 private:
  const ValueCodec& codec_;
  EncodedValues encoded_;
};

class HostValues : public ValueBackend {
 public:
  explicit HostValues(ValueCodec codec) : codec_(std::move(codec)) {}
  void encode_decode(const float* values, std::size_t rows, float* out) const override {
    HostStoredValues(codec_, values, rows).decode(out);
  }
  std::unique_ptr<StoredVectors> encode(const float* values, std::size_t rows) const override {
    return std::make_unique<HostStoredValues>(codec_, values, rows);
  }

 private:
  ValueCodec codec_;
};

class HostBackend : public CacheBackend {
 public:
  std::shared_ptr<const KeyBackend> keys(const KeyConfig& config, std::shared_ptr<const Rotation> rotation,
                                         std::shared_ptr<const Sketch> sketch,
                                         const KeyTables& tables) const override {
    return std::make_shared<HostKeys>(KeyCodec(config, std::move(rotation), std::move(sketch), tables));
  }
  std::shared_ptr<const ValueBackend> values(const ValueConfig& config, int head_dim,
                                             std::shared_ptr<const Rotation> rotation,
                                             const Codebook& codebook) const override {
    return std::make_shared<HostValues>(ValueCodec(config, head_dim, std::move(rotation), codebook));
  }
};

}  // namespace

const CacheBackend& host_backend() {
  static const HostBackend backend;
  return backend;
}

}  // namespace tq
