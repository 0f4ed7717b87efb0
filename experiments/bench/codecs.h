#pragma once

#include <memory>
#include <string>
#include <vector>

#include "core/cache_layer.h"

namespace tq::bench {

// What a cache stores keys and values in.
struct CodecPair {
  KeyConfig key;
  ValueConfig value;
  RotationKind rotation = RotationKind::rht;
};

// Of the same number of bits, scale rule nc: what this project recommends.
CodecPair mse_pair(int bits);
// Sketched keys and group values of 3 bits, as the TurboQuant+ seed has them.
CodecPair prod_pair();

// "mse4-nc / rotated4-nc", and ", qr" behind a dense rotation
std::string describe(const CodecPair&);

// A layer of such codecs with data-free tables, rotation and sketch drawn from `seed`.
CacheLayer make_layer(const CodecPair&, int head_dim, int kv_heads, std::uint64_t seed);

}  // namespace tq::bench
