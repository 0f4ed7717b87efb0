#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "core/key_codec.h"
#include "core/value_codec.h"

namespace tq {

// How a cache stores one layer. Layers of one cache may differ in everything (schedules of codecs).
struct CacheLayer {
  int head_dim = 0;  // d: a multiple of 8 from 16 to 1024
  int num_kv_heads = 0;
  // One codec for all KV heads or one a head (tables and alpha of its own; the configuration is the same).
  // Both empty: an exact layer, whose tokens all stay binary16 (the baseline, and protected layers).
  std::vector<std::shared_ptr<const KeyCodec>> keys;
  std::vector<std::shared_ptr<const ValueCodec>> values;

  bool exact() const { return keys.empty(); }
  const KeyCodec& key_codec(int kv_head) const {
    return *keys[keys.size() == 1 ? 0 : static_cast<std::size_t>(kv_head)];
  }
  const ValueCodec& value_codec(int kv_head) const {
    return *values[values.size() == 1 ? 0 : static_cast<std::size_t>(kv_head)];
  }
};

// Throws UsageError when head_dim or num_kv_heads is out of range, when keys are quantised and values are not
// or the other way round, when a number of codecs is neither 1 nor num_kv_heads, and when a codec is null, of
// another head_dim, or configured unlike the layer's first.
void validate(const CacheLayer&);

// SHA-256 of everything that decides what stored bytes mean: configurations, tables as the float32 that
// decoders hold, rotations and sketches (the objects, not their seeds).
std::array<std::uint8_t, 32> fingerprint(const CacheLayer&);

}  // namespace tq
