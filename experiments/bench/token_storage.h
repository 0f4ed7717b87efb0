#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "experiments/bench/codecs.h"
#include "experiments/bench/token_source.h"
#include "kernel_templates/gpu_attention.h"

namespace tq::bench {

// A layer's tokens in device memory: `sequences` of them, each `tokens` of `kv_heads` heads.
struct StorageShape {
  int sequences, kv_heads, tokens, d;
};

// What attention reads, stored one way or the other, filled with random tokens.
class TokenStorage {
 public:
  virtual ~TokenStorage() = default;

  // One attention step over sequences [first, first + call.sequences); the call's views and states are filled
  // in.
  virtual void attend(gpu::GpuAttention::Call call, int first, StreamRef stream) = 0;

  // Consecutive tokens of a head as they are stored: rows x d each, from token `first` on.
  struct Block {
    int thread;
    std::size_t first, rows;
    const float *k, *v;
  };
  using BlockReader = std::function<void(const Block&)>;
  // Calls `read` with all tokens of a head, on OpenMP threads.
  virtual void for_each_block(int sequence, int head, const BlockReader& read) const = 0;
};

// Tiles, as a GpuKvCache without a window holds them.
class QuantisedTokens : public TokenStorage {
 public:
  // `codecs` of all heads. Throws UsageError for a codec that has no kernels.
  QuantisedTokens(GpuContext& gpu, const StorageShape& shape, const CodecPair& codecs, std::uint64_t seed,
                  const TokenSource& source, StreamRef stream);

  void attend(gpu::GpuAttention::Call call, int first, StreamRef stream) override;
  void for_each_block(int sequence, int head, const BlockReader& read) const override;

  gpu::GpuKeyCodec& key_codec() { return keys_; }
  gpu::TileView key_tiles(int first) const;

 private:
  gpu::TileView value_tiles(int first) const;

  GpuContext& gpu_;
  StorageShape shape_;
  CacheLayer layer_;
  gpu::GpuKeyCodec keys_;
  gpu::GpuValueCodec values_;
  gpu::GpuAttention attention_;
  gpu::i64 key_bytes_, head_bytes_, page_bytes_, sequence_bytes_;
  DeviceBuffer pool_, states_;
};

// binary16 vectors, [sequence][head][token][d]: the baseline.
class ExactTokens : public TokenStorage {
 public:
  ExactTokens(GpuContext& gpu, const StorageShape& shape, const TokenSource& source, StreamRef stream);

  void attend(gpu::GpuAttention::Call call, int first, StreamRef stream) override;
  void for_each_block(int sequence, int head, const BlockReader& read) const override;

 private:
  GpuContext& gpu_;
  StorageShape shape_;
  gpu::GpuAttention attention_;
  DeviceBuffer k_, v_, states_;
};

// Nothing: binary16.
using StorageCodec = std::optional<CodecPair>;
std::string describe(const StorageCodec& codec);
// Of one token and KV head, keys and values.
int bytes_per_token(const StorageCodec& codec, int d);
std::unique_ptr<TokenStorage> make_storage(GpuContext& gpu, const StorageShape& shape,
                                           const StorageCodec& codec, std::uint64_t seed,
                                           const TokenSource& source, StreamRef stream);

}  // namespace tq::bench
