#pragma once

#include <string>
#include <vector>

#include "experiments/bench/run.h"
#include "experiments/bench/token_storage.h"

namespace tq::bench {

// One decode step of one layer.
struct AttendShape {
  int batch, kv_heads, tokens;
  int group = 8;  // query heads a KV head
  int d = 128;
};

// "(8, 8, 32768) G 8 d 128"
std::string describe(const AttendShape& shape);
Json parameters_of(const AttendShape& shape, const StorageCodec& codec);

// Attention of a shape over tokens stored in a codec, with as many copies of the inputs as keep them out of
// the L2 cache.
class AttendCase {
 public:
  AttendCase(Run& run, const AttendShape& shape, const StorageCodec& codec, const TokenSource& source);

  // What one launch must read: keys and values.
  double bytes() const { return bytes_; }
  int copies() const { return copies_; }
  Launch launch();
  // `heads` random KV heads of a random copy against float64.
  Check check(int heads);

 private:
  Run& run_;
  AttendShape shape_;
  double bytes_;
  int copies_;
  std::unique_ptr<TokenStorage> storage_;
  std::size_t step_elements_;   // queries of one launch, or outputs
  DeviceBuffer queries_, out_;  // binary16, of all copies
};

}  // namespace tq::bench
