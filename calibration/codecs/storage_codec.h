#pragma once

#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "calibration/cache_backend.h"
#include "core/codec_config.h"

namespace tq {

struct StorageConfig;

// A way to store keys or values beside those of core/: what others use, and what is being tried out. It runs
// on the host; registry.h lists them all and says how to add one.
class StorageCodec {
 public:
  virtual ~StorageCodec() = default;

  // Its value of a sweep's key-mode and value-mode.
  virtual std::string_view name() const = 0;
  // Whether it is something to compare with, and not to propose: plots show all of these as one group.
  virtual bool baseline() const { return false; }
  // The bits a coordinate that it can be asked for; empty: it comes in one size.
  virtual std::span<const int> bits() const { return {}; }
  // Whether it stores rotated directions and a scale by core's scale rules, as core's mse keys do.
  virtual bool rotates() const { return false; }
  // Throws UsageError for a head dimension that it cannot have.
  virtual void validate(int head_dim) const { validate_head_dim(head_dim); }
  // Stored bytes of one token and KV head, scales included. `bits`: one of bits(), 0 where that is empty.
  virtual int bytes_per_token(int bits, int head_dim) const = 0;
  // The config is valid; `rotation` is null for what does not rotate.
  virtual std::shared_ptr<const ValueBackend> make(const StorageConfig& config, int head_dim,
                                                   std::shared_ptr<const Rotation> rotation) const = 0;
};

// A registered codec as one side of a cache uses it.
struct StorageConfig {
  const StorageCodec* codec = nullptr;
  int bits = 0;                     // 0 where the codec comes in one size
  ScaleRule scale = ScaleRule::nc;  // of what rotates
};

// Throws UsageError for bits or a head dimension that the codec cannot have.
void validate(const StorageConfig&, int head_dim);
int bytes_per_token(const StorageConfig&, int head_dim);
// "fp8", "trellis3-nc".
std::string describe(const StorageConfig&);

// Throw UsageError as validate() does. Keys are scored as what they decode to.
std::shared_ptr<const KeyBackend> storage_keys(const StorageConfig&, int head_dim,
                                               std::shared_ptr<const Rotation> rotation);
std::shared_ptr<const ValueBackend> storage_values(const StorageConfig&, int head_dim,
                                                   std::shared_ptr<const Rotation> rotation);

}  // namespace tq
