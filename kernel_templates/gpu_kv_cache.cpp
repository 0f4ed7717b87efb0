#include "kernel_templates/gpu_kv_cache.h"

#include <algorithm>

#include "core/error.h"
#include "kernel_templates/gpu_kv_cache_layer.h"
#include "kernel_templates/kernels.h"
#include "shared/launch.h"

namespace tq::gpu {
namespace {

template <typename Codec>
std::vector<const Codec*> pointers(const std::vector<std::shared_ptr<const Codec>>& codecs) {
  std::vector<const Codec*> result;
  for (const auto& codec : codecs) result.push_back(codec.get());
  return result;
}

std::size_t page_count(std::size_t tokens) { return (tokens + kTileTokens - 1) / kTileTokens; }
int as_int(std::size_t value) { return static_cast<int>(value); }

Ranges ranges_of(const std::vector<TokenRange>& list, const TokenRange* device) {
  Ranges ranges;
  ranges.device = device;
  ranges.sequences = as_int(list.size());
  ranges.most_tiles = ranges.most_tokens = 0;
  for (const TokenRange& range : list) {
    const Ranges one = one_range(range.first, range.count);
    ranges.most_tiles = std::max(ranges.most_tiles, one.most_tiles);
    ranges.most_tokens = std::max(ranges.most_tokens, one.most_tokens);
  }
  return ranges;
}

// What an append does to one sequence.
struct AppendPlan {
  TokenRange sinks{}, from_window{}, from_input{}, window{};
};

AppendPlan plan_append(const CachePolicy& policy, std::size_t held, std::size_t tokens) {
  const TokenCounts before = token_counts(policy, held), after = token_counts(policy, held + tokens);
  const int ring = as_int(window_capacity(policy)), ring_begin = policy.sinks;
  const auto slot = [&](std::size_t token) { return ring == 0 ? 0 : ring_begin + as_int(token) % ring; };
  const std::size_t sinks = after.sinks - before.sinks, flushed = after.quantised - before.quantised;
  const std::size_t from_window = std::min(flushed, before.window), from_input = flushed - from_window;
  const std::size_t kept = tokens - sinks - from_input;
  AppendPlan plan;
  plan.sinks = {as_int(before.sinks), as_int(sinks), 0, 0, 0};
  plan.from_window = {as_int(before.quantised), as_int(from_window), slot(before.quantised), ring,
                      ring_begin};
  plan.from_input = {as_int(before.quantised + from_window), as_int(from_input), as_int(sinks), 0, 0};
  plan.window = {slot(after.quantised + after.window - kept), as_int(kept), as_int(sinks + from_input), ring,
                 ring_begin};
  return plan;
}

}  // namespace

GpuKvCache::GpuKvCache(GpuContext& gpu, std::vector<CacheLayer> layers, CachePolicy policy, int batch,
                       StreamRef stream)
    : gpu_(gpu), policy_(policy), batch_(batch), stream_(stream) {
  validate(policy_);
  if (layers.empty()) throw UsageError("a cache needs at least one layer");
  if (batch < 1) throw UsageError("a cache of {} sequences", batch);
  const Device& device = gpu_.device();
  const CurrentContext current(device);
  const std::size_t sequences = static_cast<std::size_t>(batch);
  for (CacheLayer& cache : layers) {
    validate(cache);
    auto layer = std::make_unique<Layer>();
    layer->cache = std::move(cache);
    layer->tokens.assign(sequences, 0);
    if (layer->cache.exact()) {
      layer->attention.emplace(gpu, layer->cache.head_dim);
      for (std::size_t i = 0; i < sequences; ++i) {
        layer->exact_keys.emplace_back(device, device.info().total_bytes);
        layer->exact_values.emplace_back(device, device.info().total_bytes);
      }
    } else {
      layer->keys.emplace(gpu, pointers(layer->cache.keys), Side::keys);
      layer->values.emplace(gpu, pointers(layer->cache.values));
      layer->attention.emplace(gpu, *layer->keys, *layer->values);
      layer->key_bytes = static_cast<std::size_t>(tile_bytes(layer->keys->spec()));
      layer->head_bytes = layer->key_bytes + static_cast<std::size_t>(tile_bytes(layer->values->spec()));
      layer->pool.emplace(device, device.info().total_bytes);
      layer->page_lists.resize(sequences);
      layer->slots = static_cast<std::size_t>(policy_.sinks) + window_capacity(policy_);
      layer->exact = DeviceBuffer(device, 2 * sequences * layer->sequence_halves() * sizeof(u16));
      if (layer->exact.bytes() > 0) fill(layer->exact.address(), 0, layer->exact.bytes(), stream_);
    }
    layer->states = DeviceBuffer(device, sequences * sizeof(SequenceState));
    fill(layer->states.address(), 0, layer->states.bytes(), stream_);
    layer->ranges = DeviceBuffer(device, 4 * sequences * sizeof(TokenRange));
    layers_.push_back(std::move(layer));
  }
}

GpuKvCache::~GpuKvCache() = default;

GpuKvCache::Layer& GpuKvCache::at(int layer) const { return *layers_.at(static_cast<std::size_t>(layer)); }
const CacheLayer& GpuKvCache::layer(int layer) const { return at(layer).cache; }
std::size_t GpuKvCache::tokens(int layer, int sequence) const {
  return at(layer).tokens.at(static_cast<std::size_t>(sequence));
}

void GpuKvCache::prefill(int layer, int sequence, DeviceVectors k, DeviceVectors v, std::size_t tokens) {
  if (this->tokens(layer, sequence) != 0) {
    throw UsageError("prefill: sequence {} of layer {} is not empty", sequence, layer);
  }
  append(layer, sequence, k, v, tokens);
}

void GpuKvCache::append(int layer, int sequence, DeviceVectors k, DeviceVectors v, std::size_t tokens) {
  static_cast<void>(this->tokens(layer, sequence));  // throws for what does not exist
  append_sequences(at(layer), sequence, 1, k, v, tokens);
}

void GpuKvCache::append_batch(int layer, DeviceVectors k, DeviceVectors v, std::size_t tokens) {
  append_sequences(at(layer), 0, batch_, k, v, tokens);
}

void GpuKvCache::append_sequences(Layer& layer, int first_sequence, int sequences, DeviceVectors k,
                                  DeviceVectors v, std::size_t tokens) {
  if (tokens == 0) return;
  const Device& device = gpu_.device();
  const CurrentContext current(device);
  const int d = layer.cache.head_dim, heads = layer.cache.num_kv_heads;
  const i64 row = static_cast<i64>(heads) * d, sequence_stride = row * static_cast<i64>(tokens);
  const std::size_t first = static_cast<std::size_t>(first_sequence),
                    count = static_cast<std::size_t>(sequences);
  const VectorView x[2] = {{const_cast<void*>(k.data), sequence_stride, d, row},
                           {const_cast<void*>(v.data), sequence_stride, d, row}};
  const Element element[2] = {k.element, v.element};
  for (int side = 0; side < 2; ++side) check_alignment(x[side], element[side], "append");
  for (std::size_t i = 0; i < count; ++i) {
    if (layer.tokens[first + i] + tokens > (std::size_t{1} << 30))
      throw UsageError("a sequence of over 2^30 tokens");
  }

  // Everything that can fail for lack of memory comes before anything is written.
  std::vector<AppendPlan> plans;
  std::vector<SequenceState> states;
  if (layer.cache.exact()) {
    for (std::size_t i = 0; i < count; ++i) {
      const std::size_t held = layer.tokens[first + i],
                        bytes = (held + tokens) * static_cast<std::size_t>(row) * 2;
      layer.exact_keys[first + i].grow(bytes);
      layer.exact_values[first + i].grow(bytes);
      AppendPlan plan;
      plan.sinks = {as_int(held), as_int(tokens), 0, 0, 0};
      plans.push_back(plan);
      states.push_back({0, as_int(held + tokens), 0, 0});
    }
  } else {
    std::size_t new_pages = 0, longest = 0;
    const int ring = as_int(window_capacity(policy_));
    for (std::size_t i = 0; i < count; ++i) {
      plans.push_back(plan_append(policy_, layer.tokens[first + i], tokens));
      const TokenCounts after = token_counts(policy_, layer.tokens[first + i] + tokens);
      states.push_back({as_int(after.quantised), as_int(after.sinks), as_int(after.window),
                        ring == 0 ? 0 : as_int(after.quantised) % ring});
      const std::size_t pages = page_count(after.quantised);
      new_pages += pages - layer.page_lists[first + i].size();
      longest = std::max(longest, pages);
    }
    layer.pool->grow((layer.pages + new_pages) * layer.page_bytes());
    if (as_int(longest) > layer.table_stride) {
      const int stride = std::max(as_int(longest), 2 * layer.table_stride);
      layer.table = DeviceBuffer(device, static_cast<std::size_t>(stride * batch_) * sizeof(int));
      layer.table_stride = stride;
    }
    if (new_pages > 0) {
      std::vector<int> table(static_cast<std::size_t>(layer.table_stride * batch_));
      for (std::size_t i = 0; i < count; ++i) {
        std::vector<int>& list = layer.page_lists[first + i];
        const std::size_t pages = page_count(static_cast<std::size_t>(states[i].quantised));
        while (list.size() < pages) list.push_back(as_int(layer.pages++));
      }
      for (std::size_t s = 0; s < layer.page_lists.size(); ++s) {
        std::copy(layer.page_lists[s].begin(), layer.page_lists[s].end(),
                  table.begin() + static_cast<std::ptrdiff_t>(s) * layer.table_stride);
      }
      upload(layer.table.address(), table, stream_);
    }
  }

  std::vector<TokenRange> steps[4];
  for (const AppendPlan& plan : plans) {
    steps[0].push_back(plan.from_window);
    steps[1].push_back(plan.from_input);
    steps[2].push_back(plan.sinks);
    steps[3].push_back(plan.window);
  }
  std::vector<TokenRange> all;
  for (const auto& step : steps) all.insert(all.end(), step.begin(), step.end());
  upload(layer.ranges.address(), all, stream_);
  const TokenRange* on_device = layer.ranges.as<const TokenRange>();

  if (!layer.cache.exact()) {
    // The window's oldest tokens leave before new ones take their slots.
    const Ranges from_window = ranges_of(steps[0], on_device),
                 from_input = ranges_of(steps[1], on_device + count);
    const i64 slots = static_cast<i64>(layer.slots);
    for (int side = 0; side < 2; ++side) {
      const VectorView ring{layer.exact_plane(side, first_sequence),
                            static_cast<i64>(layer.sequence_halves()), slots * d, d};
      const auto encode = [&](const VectorView& vectors, Element type, const Ranges& ranges) {
        if (ranges.most_tokens == 0) return;
        if (side == 0) {
          layer.keys->encode(vectors, type, heads, ranges, layer.key_tiles(first_sequence), true, stream_);
        } else {
          layer.values->encode(vectors, type, heads, ranges, layer.value_tiles(first_sequence), true,
                               stream_);
        }
      };
      encode(ring, Element::f16, from_window);
      encode(x[side], element[side], from_input);
    }
  }
  for (int step = 2; step < 4; ++step) {
    const TokenRange* ranges = on_device + static_cast<std::size_t>(step) * count;
    int most = 0;
    for (const TokenRange& range : steps[step]) most = std::max(most, range.count);
    if (most == 0) continue;
    const Kernel& kernel = gpu_.kernels().get(append_kernel());
    for (int side = 0; side < 2; ++side) {
      AppendParams p{};
      p.x = x[side];
      p.element = element[side];
      p.head_dim = d;
      p.heads = heads;
      if (!layer.cache.exact()) {
        p.out = layer.exact_plane(side, first_sequence);
        p.out_sequence_stride = static_cast<i64>(layer.sequence_halves());
        p.out_head_stride = static_cast<i64>(layer.slots) * d;
        p.out_token_stride = d;
        p.ranges = ranges;
        launch(kernel,
               {{static_cast<unsigned>(most), static_cast<unsigned>(heads), static_cast<unsigned>(sequences)},
                {kAppendThreads}},
               stream_, p);
        continue;
      }
      p.out_head_stride = d;
      p.out_token_stride = row;
      for (std::size_t i = 0; i < count; ++i) {
        AppendParams one = p;
        one.x.data =
            static_cast<u8*>(p.x.data) + static_cast<i64>(i) * sequence_stride * element_bytes(element[side]);
        one.out = (side == 0 ? layer.exact_keys : layer.exact_values)[first + i].as<u16>();
        one.ranges = ranges + i;
        launch(kernel, {{static_cast<unsigned>(most), static_cast<unsigned>(heads)}, {kAppendThreads}},
               stream_, one);
      }
    }
  }
  upload(layer.states.address() + first * sizeof(SequenceState), states, stream_);
  for (std::size_t i = 0; i < count; ++i) layer.tokens[first + i] += tokens;
}

void GpuKvCache::attend_batch(int layer_index, DeviceVectors q, int q_heads, float softmax_scale, void* out,
                              Element out_element, float* lse) {
  Layer& layer = at(layer_index);
  const CurrentContext current(gpu_.device());
  if (q_heads < 1 || q_heads % layer.cache.num_kv_heads != 0) {
    throw UsageError("{} query heads for {} KV heads: not a multiple", q_heads, layer.cache.num_kv_heads);
  }
  GpuAttention::Call call;
  call.queries = q.data;
  call.element = q.element;
  call.out = out;
  call.out_element = out_element;
  call.log_sum_exp = lse;
  call.group = q_heads / layer.cache.num_kv_heads;
  call.kv_heads = layer.cache.num_kv_heads;
  call.softmax_scale = softmax_scale;
  const i64 d = layer.cache.head_dim, row = d * layer.cache.num_kv_heads;
  if (!layer.cache.exact()) {
    for (const std::size_t tokens : layer.tokens) {
      const TokenCounts counts = token_counts(policy_, tokens);
      call.most_quantised = std::max(call.most_quantised, as_int(counts.quantised));
      call.most_exact = std::max(call.most_exact, as_int(counts.sinks + counts.window));
    }
    call.sequences = batch_;
    call.keys = layer.key_tiles(0);
    call.values = layer.value_tiles(0);
    call.exact = {layer.exact_plane(0, 0),
                  layer.exact_plane(1, 0),
                  static_cast<i64>(layer.sequence_halves()),
                  static_cast<i64>(layer.slots) * d,
                  d,
                  policy_.sinks,
                  as_int(window_capacity(policy_))};
    call.states = layer.states.as<const SequenceState>();
    return layer.attention->attend(call, stream_);
  }
  for (int i = 0; i < batch_; ++i) {
    GpuAttention::Call one = call;
    const std::size_t s = static_cast<std::size_t>(i);
    one.queries = static_cast<const u8*>(q.data) + i * q_heads * d * element_bytes(q.element);
    one.out = static_cast<u8*>(out) + i * q_heads * d * element_bytes(out_element);
    if (lse != nullptr) one.log_sum_exp = lse + static_cast<i64>(i) * q_heads;
    one.most_exact = as_int(layer.tokens[s]);
    one.exact = {layer.exact_keys[s].as<const u16>(), layer.exact_values[s].as<const u16>(), 0, d, row, 0, 0};
    one.states = layer.states.as<const SequenceState>() + i;
    layer.attention->attend(one, stream_);
  }
}

void GpuKvCache::quantised_scores(int layer_index, int sequence, DeviceVectors q, int q_heads, float gain,
                                  float* out, std::size_t stride) {
  Layer& layer = at(layer_index);
  const std::size_t held = tokens(layer_index, sequence);
  if (layer.cache.exact()) throw UsageError("layer {} is not quantised", layer_index);
  if (q_heads < 1 || q_heads % layer.cache.num_kv_heads != 0) {
    throw UsageError("{} query heads for {} KV heads: not a multiple", q_heads, layer.cache.num_kv_heads);
  }
  const CurrentContext current(gpu_.device());
  // A sequence's state begins with its number of quantised tokens.
  const int* count = reinterpret_cast<const int*>(layer.states.as<const SequenceState>() + sequence);
  layer.keys->scores(q.data, q.element, q_heads / layer.cache.num_kv_heads, layer.cache.num_kv_heads, 1,
                     count, as_int(token_counts(policy_, held).quantised), layer.key_tiles(sequence),
                     ScorePart::all, gain, out, static_cast<i64>(stride), stream_);
}

CacheBytes GpuKvCache::bytes_used() const {
  CacheBytes bytes;
  for (const auto& layer : layers_) {
    const std::size_t d = layer->d(), heads = layer->heads(), exact_token = heads * 2 * d * sizeof(u16);
    for (const std::size_t tokens : layer->tokens) {
      if (layer->cache.exact()) {
        bytes.exact_layers += tokens * exact_token;
        continue;
      }
      const TokenCounts counts = token_counts(policy_, tokens);
      const KeyConfig& key = layer->cache.key_codec(0).config();
      const ValueConfig& value = layer->cache.value_codec(0).config();
      const std::size_t rows = counts.quantised * heads;
      const std::size_t key_codes = d * static_cast<std::size_t>(key.bits) / 8;
      const std::size_t value_codes = d * static_cast<std::size_t>(value.bits) / 8;
      bytes.key_codes += rows * key_codes;
      bytes.key_scalars +=
          rows * (static_cast<std::size_t>(bytes_per_token(key, layer->cache.head_dim)) - key_codes);
      bytes.value_codes += rows * value_codes;
      bytes.value_scalars +=
          rows * (static_cast<std::size_t>(bytes_per_token(value, layer->cache.head_dim)) - value_codes);
      bytes.sinks += counts.sinks * exact_token;
      bytes.window += counts.window * exact_token;
    }
    bytes.allocated += layer->exact.bytes() + (layer->pool ? layer->pool->size() : 0);
    for (std::size_t s = 0; s < layer->exact_keys.size(); ++s)
      bytes.allocated += layer->exact_keys[s].size() + layer->exact_values[s].size();
  }
  return bytes;
}

}  // namespace tq::gpu
