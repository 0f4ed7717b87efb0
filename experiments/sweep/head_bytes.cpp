#include "experiments/sweep/head_bytes.h"

#include <algorithm>

namespace tq {

double compression(int fp16_bytes, int bytes) {
  return bytes > 0 ? static_cast<double>(fp16_bytes) / static_cast<double>(bytes) : 0;
}

int padding_bytes(const KeyConfig& key, int head_dim) {
  constexpr int kUpstreamBits = 4;
  return head_dim * std::max(0, kUpstreamBits - key.table_bits()) / 8;
}

HeadBytes head_bytes(const CodecOptions& codec, int head_dim) {
  HeadBytes bytes;
  if (codec.quantise_keys) {
    bytes.stored += codec.key_storage ? bytes_per_token(*codec.key_storage, head_dim)
                                      : bytes_per_token(codec.key, head_dim);
    bytes.padded += codec.key_storage ? 0 : padding_bytes(codec.key, head_dim);
    bytes.fp16 += 2 * head_dim;
  }
  if (codec.quantise_values) {
    bytes.stored += codec.value_storage ? bytes_per_token(*codec.value_storage, head_dim)
                                        : bytes_per_token(codec.value, head_dim);
    bytes.fp16 += 2 * head_dim;
  }
  bytes.padded += bytes.stored;
  return bytes;
}

}  // namespace tq
