#include "experiments/sweep/data_source.h"

#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "experiments/sample.h"

namespace tq {
namespace {

constexpr std::string_view kSampleSource = "sample", kCapturePrefix = "capture:";
// Of a capture that is kept in memory, as float32.
constexpr std::size_t kResidentBytes = std::size_t{1} << 30;
constexpr std::size_t kBlockRows = 4096;

// One layer with one head, whose queries all see every row. Substreams are those of
// write_synthetic_capture().
LayerContext synthetic_layer(const DataKey& key, int threads) {
  const std::size_t d = static_cast<std::size_t>(key.head_dim);
  const SyntheticSpec spec{.distribution = key.distribution, .head_dim = key.head_dim};
  auto blocks = std::make_shared<std::vector<TokenBlock>>();
  for (std::size_t begin = 0; begin < key.rows; begin += kBlockRows) {
    TokenBlock block;
    block.begin = begin;
    block.count = std::min(kBlockRows, key.rows - begin);
    if (key.keys) block.k.resize(block.count * d);
    if (key.values) block.v.resize(block.count * d);
    block.positions.assign(block.count, 0);
    block.sequence_ids.assign(block.count, 0);
    blocks->push_back(std::move(block));
  }
  LayerQueries queries;
  queries.positions_count = key.queries;
  queries.q.resize(key.queries * d);
  queries.positions.assign(key.queries, 0);
  queries.sequence_ids.assign(key.queries, 0);

  struct Part {
    Tensor tensor;
    std::size_t begin, count;
    float* out;
  };
  std::vector<Part> parts;
  for (TokenBlock& block : *blocks) {
    if (key.keys) parts.push_back({Tensor::k, block.begin, block.count, block.k.data()});
    if (key.values) parts.push_back({Tensor::v, block.begin, block.count, block.v.data()});
  }
  if (key.queries > 0) parts.push_back({Tensor::q, 0, key.queries, queries.q.data()});
#pragma omp parallel for schedule(dynamic) num_threads(threads)
  for (const Part& part : parts) {
    SyntheticRows rows(spec, key.seed, static_cast<std::uint32_t>(part.tensor));
    rows.skip(part.begin);
    rows.next(part.count, part.out);
  }
  LayerInfo info;
  info.head_dim = key.head_dim;
  info.has_k = key.keys;
  info.has_v = key.values;
  info.has_q = key.queries > 0;
  return LayerContext(0, info, 1, 1, 1 / std::sqrt(static_cast<double>(d)), LayerStream(std::move(blocks)),
                      std::move(queries));
}

bool fits_in_memory(const CaptureInfo& info) {
  std::size_t bytes = 0;
  for (const LayerInfo& layer : info.layers) {
    const std::size_t tensors = (layer.has_k ? 1u : 0u) + (layer.has_v ? 1u : 0u);
    const std::size_t layer_bytes = tensors * info.tokens * static_cast<std::size_t>(info.num_kv_heads) *
                                    static_cast<std::size_t>(layer.head_dim) * sizeof(float);
    if (layer_bytes > LayerStream::kCacheBytes) return false;
    bytes += layer_bytes;
  }
  return bytes <= kResidentBytes;
}

}  // namespace

std::string canonical_source(std::string_view text) {
  if (text == kSampleSource || (text.starts_with(kCapturePrefix) && text.size() > kCapturePrefix.size())) {
    return std::string(text);
  }
  try {
    return std::string(to_string(parse_choice<Distribution>("source", text)));
  } catch (const UsageError& error) {
    throw UsageError("{}, sample, capture:FILE", error.what());
  }
}

bool is_capture(std::string_view source) {
  return source == kSampleSource || source.starts_with(kCapturePrefix);
}

std::optional<std::string> capture_file(const std::string& source) {
  if (source == kSampleSource) return sample_capture_path();
  if (source.starts_with(kCapturePrefix)) return source.substr(kCapturePrefix.size());
  return std::nullopt;
}

DataSource::DataSource(const DataKey& key, int threads, Trust trust) : trust_(trust) {
  if (!key.capture) {
    layers_.push_back(synthetic_layer(key, threads));
    return;
  }
  CaptureReader capture(*key.capture, trust);
  if (!fits_in_memory(capture.info())) {
    streamed_ = *key.capture;
    return;
  }
  for (int index = 0; index < capture.info().num_layers; ++index) {
    layers_.emplace_back(capture, index, nullptr, nullptr, nullptr, Progress());
    layers_.back().stream.for_each([](const TokenBlock&) {});  // from now on it needs no reader
  }
}

CaptureReport DataSource::measure(const CodecOptions& options, const CacheBackend& backend,
                                  const Progress& progress) const {
  if (!streamed_.empty()) {
    CaptureReader capture(streamed_, trust_);
    return evaluate_capture(capture, options, progress, backend);
  }
  const auto open = [&](int index) {
    LayerContext layer = layers_[static_cast<std::size_t>(index)];
    layer.progress = progress;
    return layer;
  };
  return evaluate_layers(static_cast<int>(layers_.size()), open, options, backend);
}

std::shared_ptr<const DataSource> DataSources::get(const DataKey& key) {
  const std::lock_guard lock(mutex_);
  for (const auto& [known, source] : latest_) {
    if (known == key) return source;
  }
  if (latest_.size() == 2) latest_.pop_front();
  latest_.emplace_back(key, std::make_shared<DataSource>(key, threads_, trust_));
  return latest_.back().second;
}

}  // namespace tq
