#include "calibration/timed_backend.h"

#include <chrono>

namespace tq {
namespace {

template <typename Work>
double seconds_of(const Work& work) {
  const auto begin = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

class TimedStoredKeys : public StoredKeys {
 public:
  TimedStoredKeys(std::unique_ptr<StoredKeys> keys, bool decodes_apart, CodecClock& clock)
      : keys_(std::move(keys)), decodes_apart_(decodes_apart), clock_(clock) {}
  void decode(float* out) const override {
    const double seconds = seconds_of([&] { keys_->decode(out); });
    if (decodes_apart_) clock_.add({.decode_seconds = seconds});
  }
  void scores(const float* queries, std::size_t count, float* out) const override {
    keys_->scores(queries, count, out);
  }

 private:
  std::unique_ptr<StoredKeys> keys_;
  bool decodes_apart_;
  CodecClock& clock_;
};

class TimedKeys : public KeyBackend {
 public:
  TimedKeys(std::shared_ptr<const KeyBackend> codec, CodecClock& clock)
      : codec_(std::move(codec)), clock_(clock) {}
  std::unique_ptr<StoredKeys> encode(const float* keys, std::size_t rows) const override {
    std::unique_ptr<StoredKeys> stored;
    const double seconds = seconds_of([&] { stored = codec_->encode(keys, rows); });
    clock_.add(decodes_apart() ? CodecTimes{.vectors = rows, .encode_seconds = seconds}
                               : CodecTimes{.vectors = rows, .one_pass_seconds = seconds});
    return std::make_unique<TimedStoredKeys>(std::move(stored), decodes_apart(), clock_);
  }
  bool decodes_apart() const override { return codec_->decodes_apart(); }

 private:
  std::shared_ptr<const KeyBackend> codec_;
  CodecClock& clock_;
};

class TimedValues : public ValueBackend {
 public:
  TimedValues(std::shared_ptr<const ValueBackend> codec, CodecClock& clock)
      : codec_(std::move(codec)), clock_(clock) {}
  void encode_decode(const float* values, std::size_t rows, float* out) const override {
    std::unique_ptr<StoredVectors> stored;
    CodecTimes times{.vectors = rows};
    times.encode_seconds = seconds_of([&] { stored = codec_->encode(values, rows); });
    if (stored) {
      times.decode_seconds = seconds_of([&] { stored->decode(out); });
    } else {
      times.encode_seconds = 0;
      times.one_pass_seconds = seconds_of([&] { codec_->encode_decode(values, rows, out); });
    }
    clock_.add(times);
  }

 private:
  std::shared_ptr<const ValueBackend> codec_;
  CodecClock& clock_;
};

}  // namespace

void CodecTimes::add(const CodecTimes& other) {
  vectors += other.vectors;
  encode_seconds += other.encode_seconds;
  decode_seconds += other.decode_seconds;
  one_pass_seconds += other.one_pass_seconds;
}

void CodecClock::add(const CodecTimes& times) {
  const std::lock_guard lock(mutex_);
  total_.add(times);
}

CodecTimes CodecClock::total() const {
  const std::lock_guard lock(mutex_);
  return total_;
}

std::shared_ptr<const KeyBackend> timed(std::shared_ptr<const KeyBackend> codec, CodecClock& clock) {
  return std::make_shared<TimedKeys>(std::move(codec), clock);
}

std::shared_ptr<const ValueBackend> timed(std::shared_ptr<const ValueBackend> codec, CodecClock& clock) {
  return std::make_shared<TimedValues>(std::move(codec), clock);
}

}  // namespace tq
