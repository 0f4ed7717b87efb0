#pragma once

#include "calibration/evaluate_capture.h"

namespace tq {

// Bytes of one token and KV head, of the sides that are quantised.
struct HeadBytes {
  int stored = 0;
  int padded = 0;  // key indices at no fewer than four bits, as upstream counts them
  int fp16 = 0;
};
HeadBytes head_bytes(const CodecOptions& codec, int head_dim);

// What padding adds to a key vector.
int padding_bytes(const KeyConfig& key, int head_dim);

// FP16 bytes over bytes.
double compression(int fp16_bytes, int bytes);

}  // namespace tq
