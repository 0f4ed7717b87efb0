#include <algorithm>
#include <cstring>
#include <stdexcept>

#include "core/error.h"
#include "kernel_templates/gpu_kv_cache_layer.h"
#include "kernel_templates/tile_rows.h"

// A cache between the device and the host, tile by tile.
namespace tq::gpu {
namespace {

std::size_t page_count(std::size_t tokens) { return (tokens + kTileTokens - 1) / kTileTokens; }
int as_int(std::size_t value) { return static_cast<int>(value); }

// One sequence of a layer on the host, as it lies on the device.
struct Staged {
  std::vector<u16> exact[2];  // keys, values: [head][slot][d], or [token][head][d] of an exact layer
  std::vector<u8> pages;
};

// Rows of one tile in core's layout.
struct TileRows {
  std::vector<std::uint8_t> codes, signs;
  std::vector<std::uint16_t> scales, norms;
  TileRows(std::size_t rows, std::size_t code_bytes, std::size_t sign_bytes, std::size_t scale_count,
           std::size_t norm_count)
      : codes(rows * code_bytes),
        signs(rows * sign_bytes),
        scales(rows * scale_count),
        norms(rows * norm_count) {}
  KeyBlock keys() { return {codes.data(), scales.data(), signs.data(), norms.data()}; }
  GroupBlock groups() { return {codes.data(), norms.data(), scales.data()}; }
};

// Goes through a sequence's bytes in the order of TokenStore::save(). transfer(pointer, bytes) takes or gives
// them; `to_tiles` says which: afterwards tiles are made of rows, or before rows of tiles.
template <typename Transfer>
void walk(const CacheLayer& layer, const KeySpec& key, const ValueSpec& value, const TokenCounts& counts,
          std::size_t slots, int ring_begin, int ring, bool to_tiles, Staged& staged,
          const Transfer& transfer) {
  const std::size_t d = static_cast<std::size_t>(layer.head_dim),
                    heads = static_cast<std::size_t>(layer.num_kv_heads);
  const bool exact_layer = layer.exact();
  const auto row_of = [&](std::size_t side, std::size_t head, std::size_t slot) {
    return staged.exact[side].data() + (exact_layer ? slot * heads + head : head * slots + slot) * d;
  };
  for (std::size_t first = 0; first < counts.sinks; first += kTileTokens) {
    const std::size_t end = std::min<std::size_t>(counts.sinks, first + kTileTokens);
    for (std::size_t head = 0; head < heads; ++head) {
      for (std::size_t side = 0; side < 2; ++side) {
        for (std::size_t t = first; t < end; ++t) transfer(row_of(side, head, t), d * sizeof(u16));
      }
    }
  }
  for (std::size_t page = 0; page * kTileTokens < counts.quantised; ++page) {
    const std::size_t rows = std::min<std::size_t>(kTileTokens, counts.quantised - page * kTileTokens);
    for (std::size_t head = 0; head < heads; ++head) {
      const int key_size = tile_bytes(key), head_bytes = key_size + tile_bytes(value);
      u8* tile = staged.pages.data() + (page * heads + head) * static_cast<std::size_t>(head_bytes);
      const KeyCodec& codec = layer.key_codec(static_cast<int>(head));
      TileRows keys(rows, d * static_cast<std::size_t>(key.table_bits) / 8, key.prod ? d / 8 : 0, 1,
                    key.prod ? 1 : 0);
      if (!to_tiles) tile_to_keys(key, Side::keys, codec, tile, static_cast<int>(rows), keys.keys());
      transfer(keys.codes.data(), keys.codes.size());
      transfer(keys.scales.data(), keys.scales.size() * 2);
      transfer(keys.signs.data(), keys.signs.size());
      transfer(keys.norms.data(), keys.norms.size() * 2);
      if (to_tiles)
        keys_to_tile(key, Side::keys, codec, ConstKeyBlock(keys.keys()), static_cast<int>(rows), tile);
      tile += key_size;
      if (value.rotated) {
        const KeyCodec& rotated = *layer.value_codec(static_cast<int>(head)).rotated();
        TileRows values(rows, d * static_cast<std::size_t>(value.table.table_bits) / 8, 0, 1, 0);
        if (!to_tiles)
          tile_to_keys(value.table, Side::values, rotated, tile, static_cast<int>(rows), values.keys());
        transfer(values.codes.data(), values.codes.size());
        transfer(values.scales.data(), values.scales.size() * 2);
        if (to_tiles)
          keys_to_tile(value.table, Side::values, rotated, ConstKeyBlock(values.keys()),
                       static_cast<int>(rows), tile);
      } else {
        const std::size_t groups = d / static_cast<std::size_t>(value.group.group_size);
        TileRows values(rows, d * static_cast<std::size_t>(value.group.bits) / 8, 0, groups, groups);
        if (!to_tiles) tile_to_groups(value.group, tile, static_cast<int>(rows), values.groups());
        transfer(values.codes.data(), values.codes.size());
        transfer(values.scales.data(), values.scales.size() * 2);
        transfer(values.norms.data(), values.norms.size() * 2);
        if (to_tiles)
          groups_to_tile(value.group, ConstGroupBlock(values.groups()), static_cast<int>(rows), tile);
      }
    }
  }
  for (std::size_t side = 0; side < 2; ++side) {
    for (std::size_t head = 0; head < heads; ++head) {
      for (std::size_t i = 0; i < counts.window; ++i) {
        const std::size_t slot =
            static_cast<std::size_t>(ring_begin) + (counts.quantised + i) % static_cast<std::size_t>(ring);
        transfer(row_of(side, head, slot), d * sizeof(u16));
      }
    }
  }
}

}  // namespace

KvCache GpuKvCache::to_host() const {
  const CurrentContext current(gpu_.device());
  std::vector<CacheLayer> layers;
  for (const auto& layer : layers_) layers.push_back(layer->cache);
  KvCache cache(std::move(layers), policy_, batch_);
  for (int l = 0; l < this->layers(); ++l) {
    const Layer& layer = at(l);
    for (int s = 0; s < batch_; ++s) {
      const std::size_t sequence = static_cast<std::size_t>(s), tokens = layer.tokens[sequence];
      if (tokens == 0) continue;
      Staged staged;
      TokenCounts counts = token_counts(policy_, tokens);
      if (layer.cache.exact()) {
        counts = {tokens, 0, 0};
        for (std::size_t side = 0; side < 2; ++side) {
          staged.exact[side].resize(tokens * layer.heads() * layer.d());
          download(staged.exact[side],
                   (side == 0 ? layer.exact_keys : layer.exact_values)[sequence].address(), stream_);
        }
      } else {
        for (int side = 0; side < 2; ++side) {
          staged.exact[side].resize(layer.sequence_halves());
          if (layer.sequence_halves() > 0)
            download(staged.exact[side], reinterpret_cast<DeviceAddress>(layer.exact_plane(side, s)),
                     stream_);
        }
        std::vector<u8> page(layer.page_bytes());
        for (const int index : layer.page_lists[sequence]) {
          download(page, layer.pool->address() + static_cast<std::size_t>(index) * layer.page_bytes(),
                   stream_);
          staged.pages.insert(staged.pages.end(), page.begin(), page.end());
        }
      }
      std::vector<u8> bytes;
      walk(layer.cache, layer.keys ? layer.keys->spec() : KeySpec{},
           layer.values ? layer.values->spec() : ValueSpec{}, counts, layer.slots, policy_.sinks,
           as_int(window_capacity(policy_)), false, staged, [&](const void* from, std::size_t count) {
             const u8* begin = static_cast<const u8*>(from);
             bytes.insert(bytes.end(), begin, begin + count);
           });
      std::size_t done = 0;
      cache.restore_sequence(l, s, tokens, [&](void* to, std::size_t count) {
        if (count > bytes.size() - done) throw std::logic_error("a cache's walk and its store differ");
        if (count > 0) std::memcpy(to, bytes.data() + done, count);
        done += count;
      });
    }
  }
  return cache;
}

void GpuKvCache::from_host(const KvCache& cache) {
  if (cache.layers() != layers() || cache.batch() != batch_ || !(cache.policy() == policy_)) {
    throw UsageError("from_host: the caches differ in layers, batch or policy");
  }
  const Device& device = gpu_.device();
  const CurrentContext current(device);
  for (int l = 0; l < layers(); ++l) {
    if (fingerprint(cache.layer(l)) != fingerprint(at(l).cache)) {
      throw UsageError("from_host: layer {} has another codec, tables, rotation or shape", l);
    }
  }
  for (int l = 0; l < layers(); ++l) {
    Layer& layer = at(l);
    std::vector<SequenceState> states;
    std::vector<int> table;
    layer.pages = 0;
    for (int s = 0; s < batch_; ++s) {
      const std::size_t sequence = static_cast<std::size_t>(s), tokens = cache.tokens(l, s);
      std::vector<u8> bytes;
      cache.store(l, s).save([&](const void* from, std::size_t count) {
        const u8* begin = static_cast<const u8*>(from);
        bytes.insert(bytes.end(), begin, begin + count);
      });
      std::size_t done = 0;
      const auto give = [&](void* to, std::size_t count) {
        if (count > bytes.size() - done) throw std::logic_error("a cache's walk and its store differ");
        if (count > 0) std::memcpy(to, bytes.data() + done, count);
        done += count;
      };
      Staged staged;
      TokenCounts counts = token_counts(policy_, tokens);
      const int ring = as_int(window_capacity(policy_));
      if (layer.cache.exact()) {
        counts = {tokens, 0, 0};
        for (auto& side : staged.exact) side.resize(tokens * layer.heads() * layer.d());
      } else {
        for (auto& side : staged.exact) side.resize(layer.sequence_halves());
        staged.pages.resize(page_count(counts.quantised) * layer.page_bytes());
      }
      walk(layer.cache, layer.keys ? layer.keys->spec() : KeySpec{},
           layer.values ? layer.values->spec() : ValueSpec{}, counts, layer.slots, policy_.sinks, ring, true,
           staged, give);
      layer.tokens[sequence] = tokens;
      if (layer.cache.exact()) {
        states.push_back({0, as_int(tokens), 0, 0});
        layer.exact_keys[sequence].grow(staged.exact[0].size() * 2);
        layer.exact_values[sequence].grow(staged.exact[1].size() * 2);
        if (tokens > 0) {
          upload(layer.exact_keys[sequence].address(), staged.exact[0], stream_);
          upload(layer.exact_values[sequence].address(), staged.exact[1], stream_);
        }
        continue;
      }
      states.push_back({as_int(counts.quantised), as_int(counts.sinks), as_int(counts.window),
                        ring == 0 ? 0 : as_int(counts.quantised) % ring});
      for (int side = 0; side < 2; ++side) {
        if (layer.sequence_halves() > 0)
          upload(reinterpret_cast<DeviceAddress>(layer.exact_plane(side, s)), staged.exact[side], stream_);
      }
      std::vector<int>& list = layer.page_lists[sequence];
      list.clear();
      const std::size_t first = layer.pages;
      for (std::size_t page = 0; page < page_count(counts.quantised); ++page)
        list.push_back(as_int(layer.pages++));
      layer.pool->grow(layer.pages * layer.page_bytes());
      if (!staged.pages.empty())
        upload(layer.pool->address() + first * layer.page_bytes(), staged.pages, stream_);
    }
    upload(layer.states.address(), states, stream_);
    if (layer.cache.exact()) continue;
    for (const auto& list : layer.page_lists)
      layer.table_stride = std::max(layer.table_stride, as_int(list.size()));
    table.resize(static_cast<std::size_t>(layer.table_stride) * static_cast<std::size_t>(batch_));
    for (std::size_t s = 0; s < layer.page_lists.size(); ++s) {
      std::copy(layer.page_lists[s].begin(), layer.page_lists[s].end(),
                table.begin() + static_cast<std::ptrdiff_t>(s) * layer.table_stride);
    }
    layer.table = DeviceBuffer(device, table.size() * sizeof(int));
    if (!table.empty()) upload(layer.table.address(), table, stream_);
  }
  stream_.synchronize();
}

}  // namespace tq::gpu
