#pragma once

#include <cstddef>
#include <memory>
#include <mutex>

#include "calibration/cache_backend.h"

namespace tq {

// How long a codec took for one side of the cache, in wall time of its calls: what a caller waits, with all
// threads that the codec uses and a GPU's transfers. Calls on several threads at once add up. Queries are not
// in it, nor what is fitted first.
struct CodecTimes {
  std::size_t vectors = 0;
  double encode_seconds = 0, decode_seconds = 0;
  double one_pass_seconds = 0;  // of codecs that encode and decode in one pass; the two above are then 0

  void add(const CodecTimes& other);
};

// Adds up the times of calls from any thread.
class CodecClock {
 public:
  void add(const CodecTimes& times);
  CodecTimes total() const;

 private:
  mutable std::mutex mutex_;
  CodecTimes total_;
};

// The same codec, whose calls are timed: two readings of a clock a block. `clock` must outlive it.
std::shared_ptr<const KeyBackend> timed(std::shared_ptr<const KeyBackend> codec, CodecClock& clock);
std::shared_ptr<const ValueBackend> timed(std::shared_ptr<const ValueBackend> codec, CodecClock& clock);

}  // namespace tq
