#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "calibration/cache_backend.h"
#include "calibration/evaluate_capture.h"
#include "calibration/layer_context.h"
#include "datasets/synthetic.h"

namespace tq {

// The values of the axis `source`: a synthetic distribution, "sample", or "capture:FILE". Throws UsageError.
std::string canonical_source(std::string_view text);
// Whether a canonical source is a capture's, not a distribution. Looks at no file.
bool is_capture(std::string_view source);
// The file of "sample" or "capture:FILE"; none for a distribution.
std::optional<std::string> capture_file(const std::string& source);

// What identifies the vectors that a configuration is measured on.
struct DataKey {
  std::optional<std::string> capture;  // a file; the rest is for synthetic data
  Distribution distribution = Distribution::gaussian;
  int head_dim = 0;
  std::size_t rows = 0, queries = 0;
  std::uint64_t seed = 0;
  bool keys = true, values = true;  // what is needed
  friend bool operator==(const DataKey&, const DataKey&) = default;
};

// Layers to measure codecs on: synthetic ones, or a capture's. Held in memory, except captures that are too
// large; those are read again by every measurement. Safe to share between threads.
class DataSource {
 public:
  // Synthetic rows are drawn on `threads` threads, and do not depend on their number.
  DataSource(const DataKey& key, int threads, Trust trust);
  CaptureReport measure(const CodecOptions& options, const CacheBackend& backend,
                        const Progress& progress) const;

 private:
  Trust trust_;
  std::string streamed_;  // the capture's path, when it is not in memory
  std::vector<LayerContext> layers_;
};

// Makes sources, one at a time, and keeps the two latest: configurations that share their data come one after
// the other, so that each is made once. Who asks meanwhile waits, hence all of the machine's `threads` are
// put to it.
class DataSources {
 public:
  DataSources(int threads, Trust trust) : threads_(threads), trust_(trust) {}
  std::shared_ptr<const DataSource> get(const DataKey& key);

 private:
  int threads_;
  Trust trust_;
  std::mutex mutex_;
  std::deque<std::pair<DataKey, std::shared_ptr<const DataSource>>> latest_;
};

}  // namespace tq
