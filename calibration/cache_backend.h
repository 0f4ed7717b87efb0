#pragma once

#include <cstddef>
#include <memory>

#include "core/codebook.h"
#include "core/codec_config.h"
#include "core/rotation.h"
#include "core/sketch.h"

namespace tq {

// What an evaluation asks of whoever stores a cache: the host's codecs (core/key_codec.h,
// core/value_codec.h), or another device's. Work comes in whole blocks of thousands of vectors. Every method
// may be called from several threads at once. `rows` x d and `count` x d arrays are float32 in this process's
// memory.

// One head's vectors of one block, encoded.
class StoredVectors {
 public:
  virtual ~StoredVectors() = default;
  // out: rows x d.
  virtual void decode(float* out) const = 0;
};

class StoredKeys : public StoredVectors {
 public:
  // out[q * rows + t] = <query q, x^_t>, from the codes.
  virtual void scores(const float* queries, std::size_t count, float* out) const = 0;
};

class KeyBackend {
 public:
  virtual ~KeyBackend() = default;
  virtual std::unique_ptr<StoredKeys> encode(const float* keys, std::size_t rows) const = 0;
  // Whether encode() leaves all of the decoding to decode(); else it does both in one pass.
  virtual bool decodes_apart() const { return false; }
};

class ValueBackend {
 public:
  virtual ~ValueBackend() = default;
  // What encoding leaves of the values. out: rows x d.
  virtual void encode_decode(const float* values, std::size_t rows, float* out) const = 0;
  // Its first half, where there is one; null where both are one pass.
  virtual std::unique_ptr<StoredVectors> encode(const float* /*values*/, std::size_t /*rows*/) const {
    return nullptr;
  }
};

class CacheBackend {
 public:
  virtual ~CacheBackend() = default;
  // Arguments and exceptions are those of KeyCodec and ValueCodec.
  virtual std::shared_ptr<const KeyBackend> keys(const KeyConfig& config,
                                                 std::shared_ptr<const Rotation> rotation,
                                                 std::shared_ptr<const Sketch> sketch,
                                                 const KeyTables& tables) const = 0;
  virtual std::shared_ptr<const ValueBackend> values(const ValueConfig& config, int head_dim,
                                                     std::shared_ptr<const Rotation> rotation,
                                                     const Codebook& codebook) const = 0;
};

const CacheBackend& host_backend();

}  // namespace tq
