#pragma once

#include <cstddef>
#include <optional>
#include <vector>

#include "kernel_templates/gpu_kv_cache.h"

// What a GpuKvCache holds of one layer; for its own sources only.
namespace tq::gpu {

struct GpuKvCache::Layer {
  CacheLayer cache;
  std::optional<GpuKeyCodec> keys;
  std::optional<GpuValueCodec> values;
  std::optional<GpuAttention> attention;
  std::vector<std::size_t> tokens;  // a sequence

  // Quantised tokens.
  std::optional<GrowableBuffer> pool;
  std::size_t key_bytes = 0, head_bytes = 0, pages = 0;
  std::vector<std::vector<int>> page_lists;  // a sequence
  DeviceBuffer table;                        // [sequence][table_stride]
  int table_stride = 0;

  // Binary16 tokens of a quantised layer: keys, then values, each [sequence][head][slot][d].
  DeviceBuffer exact;
  std::size_t slots = 0;
  // Of an exact layer: a sequence's keys and values, each [token][head][d].
  std::vector<GrowableBuffer> exact_keys, exact_values;

  DeviceBuffer states;  // SequenceState, a sequence
  DeviceBuffer ranges;  // 4 x sequences

  std::size_t d() const { return static_cast<std::size_t>(cache.head_dim); }
  std::size_t heads() const { return static_cast<std::size_t>(cache.num_kv_heads); }
  std::size_t sequence_halves() const { return heads() * slots * d(); }
  std::size_t half_bytes() const { return exact.bytes() / 2; }
  std::size_t page_bytes() const { return head_bytes * heads(); }

  TileView key_tiles(int sequence) const {
    return {pool->as<u8>(),
            static_cast<i64>(page_bytes()),
            static_cast<i64>(head_bytes),
            0,
            table.as<const int>() + static_cast<std::ptrdiff_t>(sequence) * table_stride,
            table_stride};
  }
  TileView value_tiles(int sequence) const {
    TileView view = key_tiles(sequence);
    view.base += key_bytes;
    return view;
  }
  u16* exact_plane(int side, int sequence) const {
    return exact.as<u16>() + static_cast<std::size_t>(side) * exact.bytes() / 4 +
           static_cast<std::size_t>(sequence) * sequence_halves();
  }
};

}  // namespace tq::gpu
