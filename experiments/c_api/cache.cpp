#include <algorithm>
#include <memory>
#include <mutex>
#include <shared_mutex>

#include "calibration/artefact/cache_layers.h"
#include "core/error.h"
#include "core/kv_cache.h"
#include "experiments/c_api/artefact_file.h"
#include "experiments/c_api/handles.h"
#include "experiments/c_api/last_error.h"
#include "kernel_templates/gpu_kv_cache.h"

// A cache on the host or on a GPU: one of the two.
struct tq_cache {
  mutable std::shared_mutex mutex;
  std::unique_ptr<tq::KvCache> host;

  std::shared_ptr<tq::GpuContext> gpu;  // outlives what follows
  tq::StreamRef stream;
  std::unique_ptr<tq::Event> given, done;
  std::unique_ptr<tq::gpu::GpuKvCache> device;

  int layers() const { return host ? host->layers() : device->layers(); }
  int batch() const { return host ? host->batch() : device->batch(); }
  const tq::CachePolicy& policy() const { return host ? host->policy() : device->policy(); }
  const tq::CacheLayer& layer(int index) const { return host ? host->layer(index) : device->layer(index); }
  std::size_t tokens(int layer, int sequence) const {
    return host ? host->tokens(layer, sequence) : device->tokens(layer, sequence);
  }
};

namespace tq::c_api {
namespace {

std::unique_ptr<tq_cache> make_cache(std::vector<CacheLayer> layers, const tq_cache_policy* asked, int batch,
                                     const tq_gpu* gpu, void* stream) {
  require(asked, "policy");
  const CachePolicy policy{asked->recent, asked->sinks, asked->flush_block};
  auto made = std::make_unique<tq_cache>();
  if (gpu == nullptr) {
    made->host = std::make_unique<KvCache>(std::move(layers), policy, batch);
    return made;
  }
  made->gpu = gpu->context;
  made->stream = StreamRef::from_pointer(stream);
  made->given = std::make_unique<Event>(gpu->context->device());
  made->done = std::make_unique<Event>(gpu->context->device());
  made->device =
      std::make_unique<gpu::GpuKvCache>(*gpu->context, std::move(layers), policy, batch, made->stream);
  return made;
}

// The artefact's, else the usual one.
tq_cache_policy policy_of(const Artefact& artefact) {
  const CachePolicy policy = artefact.policy.value_or(CachePolicy());
  return {policy.recent, policy.sinks, policy.flush_block};
}

CacheLayer layer_of(const tq_cache_layer& from) {
  CacheLayer layer{from.head_dim, from.kv_heads, {}, {}};
  if (from.keys != nullptr) layer.keys = from.keys->keys;
  if (from.values != nullptr) layer.values = from.values->values;
  if ((from.keys != nullptr && layer.keys.empty()) || (from.values != nullptr && layer.values.empty())) {
    throw UsageError("a layer's `keys` must be a codec of keys, its `values` one of values");
  }
  return layer;
}

void check_index(const char* what, int index, int count) {
  if (index < 0 || index >= count) {
    throw UsageError("there is no {} {}; the cache has {}, counted from 0", what, index, count);
  }
}
tq_cache& checked(tq_cache* cache, int layer, int sequence) {
  require(cache, "cache");
  check_index("layer", layer, cache->layers());
  check_index("sequence", sequence, cache->batch());
  return *cache;
}
const tq_cache& checked(const tq_cache* cache, int layer, int sequence) {
  return checked(const_cast<tq_cache*>(cache), layer, sequence);
}

void check_arrays(std::initializer_list<const void*> arrays, const char* names) {
  if (std::find(arrays.begin(), arrays.end(), nullptr) != arrays.end())
    throw UsageError("{} may not be null", names);
}

// Vectors in host memory.
const float* floats(const void* data, int element) {
  if (element_of(element) != gpu::Element::f32) throw UsageError("a cache on the host takes float32 vectors");
  return static_cast<const float*>(data);
}

// Runs `body` after what the caller's stream holds, and makes that stream wait for what `body` put into the
// cache's own.
template <typename Body>
void ordered_with(tq_cache& cache, void* callers, const Body& body) {
  const StreamRef stream = StreamRef::from_pointer(callers);
  if (stream.handle() == cache.stream.handle()) return body();
  cache.given->record(stream);
  cache.given->make_wait(cache.stream);
  const auto hand_back = [&] {
    cache.done->record(cache.stream);
    cache.done->make_wait(stream);
  };
  try {
    body();
  } catch (...) {
    // Some of the work may be under way and read the caller's arrays; the first error is the one to tell.
    static_cast<void>(guarded(hand_back));
    throw;
  }
  hand_back();
}

std::size_t quantised(const tq_cache& cache, int layer, int sequence) {
  if (cache.layer(layer).exact()) return 0;
  return token_counts(cache.policy(), cache.tokens(layer, sequence)).quantised;
}

int append(tq_cache* handle, int layer, int sequence, const void* k, const void* v, tq_element element,
           std::size_t tokens, void* stream, bool prefill) {
  return guarded([&] {
    tq_cache& cache = checked(handle, layer, sequence);
    const gpu::Element type = element_of(element);
    if (tokens > 0) check_arrays({k, v}, "k and v");
    const std::scoped_lock lock(cache.mutex);
    if (cache.host) {
      const auto call = prefill ? &KvCache::prefill : &KvCache::append;
      return (cache.host.get()->*call)(layer, sequence, floats(k, element), floats(v, element), tokens);
    }
    const auto call = prefill ? &gpu::GpuKvCache::prefill : &gpu::GpuKvCache::append;
    ordered_with(cache, stream, [&] {
      (cache.device.get()->*call)(layer, sequence, {k, type}, {v, type}, tokens);
    });
  });
}

}  // namespace
}  // namespace tq::c_api

using namespace tq::c_api;

int tq_cache_create(const tq_cache_layer* layers, size_t count, const tq_cache_policy* policy, int batch,
                    tq_gpu* gpu, void* stream, tq_cache** cache) {
  return guarded([&] {
    require(cache, "cache");
    if (count > 0) require(layers, "layers");
    std::vector<tq::CacheLayer> list;
    for (std::size_t i = 0; i < count; ++i) list.push_back(layer_of(layers[i]));
    *cache = make_cache(std::move(list), policy, batch, gpu, stream).release();
  });
}

int tq_cache_from_artefact(const char* path, const tq_cache_policy* policy, int batch, tq_gpu* gpu,
                           void* stream, tq_cache** cache) {
  return guarded([&] {
    require(cache, "cache");
    const tq::Artefact artefact = read_artefact_file(path);
    const tq_cache_policy own = policy_of(artefact);
    *cache = make_cache(tq::cache_layers(artefact), policy != nullptr ? policy : &own, batch, gpu, stream)
                 .release();
  });
}

int tq_artefact_policy(const char* path, tq_cache_policy* policy) {
  return guarded([&] {
    require(policy, "policy");
    *policy = policy_of(read_artefact_file(path));
  });
}

void tq_cache_destroy(tq_cache* cache) { delete cache; }

int tq_cache_describe(const tq_cache* cache, int* layers, int* batch, tq_cache_policy* policy) {
  return guarded([&] {
    require(cache, "cache");
    if (layers != nullptr) *layers = cache->layers();
    if (batch != nullptr) *batch = cache->batch();
    if (policy != nullptr)
      *policy = {cache->policy().recent, cache->policy().sinks, cache->policy().flush_block};
  });
}

int tq_cache_layer_shape(const tq_cache* handle, int layer, int* head_dim, int* kv_heads) {
  return guarded([&] {
    const tq_cache& cache = checked(handle, layer, 0);
    if (head_dim != nullptr) *head_dim = cache.layer(layer).head_dim;
    if (kv_heads != nullptr) *kv_heads = cache.layer(layer).num_kv_heads;
  });
}

int tq_cache_tokens(const tq_cache* handle, int layer, int sequence, size_t* tokens) {
  return guarded([&] {
    const tq_cache& cache = checked(handle, layer, sequence);
    require(tokens, "tokens");
    const std::shared_lock lock(cache.mutex);
    *tokens = cache.tokens(layer, sequence);
  });
}

int tq_cache_prefill(tq_cache* cache, int layer, int sequence, const void* k, const void* v,
                     tq_element element, size_t tokens, void* stream) {
  return append(cache, layer, sequence, k, v, element, tokens, stream, true);
}

int tq_cache_append(tq_cache* cache, int layer, int sequence, const void* k, const void* v,
                    tq_element element, size_t tokens, void* stream) {
  return append(cache, layer, sequence, k, v, element, tokens, stream, false);
}

int tq_cache_append_batch(tq_cache* handle, int layer, const void* k, const void* v, tq_element element,
                          size_t tokens, void* stream) {
  return guarded([&] {
    tq_cache& cache = checked(handle, layer, 0);
    const tq::gpu::Element type = element_of(element);
    if (tokens > 0) check_arrays({k, v}, "k and v");
    const std::scoped_lock lock(cache.mutex);
    if (!cache.host) {
      return ordered_with(cache, stream, [&] {
        cache.device->append_batch(layer, {k, type}, {v, type}, tokens);
      });
    }
    const tq::CacheLayer& shape = cache.layer(layer);
    const std::size_t row =
        static_cast<std::size_t>(shape.num_kv_heads) * static_cast<std::size_t>(shape.head_dim);
    for (int i = 0; i < cache.batch(); ++i) {
      const std::size_t offset = static_cast<std::size_t>(i) * tokens * row;
      cache.host->append(layer, i, floats(k, element) + offset, floats(v, element) + offset, tokens);
    }
  });
}

int tq_cache_attend(tq_cache* handle, int layer, const void* q, tq_element q_element, int q_heads,
                    float softmax_scale, void* out, tq_element out_element, float* lse, void* stream) {
  return guarded([&] {
    tq_cache& cache = checked(handle, layer, 0);
    check_arrays({q, out}, "q and out");
    const tq::gpu::Element q_type = element_of(q_element), out_type = element_of(out_element);
    if (cache.host) {
      const std::shared_lock lock(cache.mutex);
      const float* to = floats(out, out_element);
      return cache.host->attend_batch(layer, floats(q, q_element), q_heads, softmax_scale,
                                      const_cast<float*>(to), lse);
    }
    const std::scoped_lock lock(cache.mutex);  // of the attention's workspace, too
    ordered_with(cache, stream, [&] {
      cache.device->attend_batch(layer, {q, q_type}, q_heads, softmax_scale, out, out_type, lse);
    });
  });
}

int tq_cache_quantised(const tq_cache* handle, int layer, int sequence, size_t* tokens) {
  return guarded([&] {
    const tq_cache& cache = checked(handle, layer, sequence);
    require(tokens, "tokens");
    const std::shared_lock lock(cache.mutex);
    *tokens = quantised(cache, layer, sequence);
  });
}

int tq_cache_scores(tq_cache* handle, int layer, int sequence, const void* q, tq_element element, int q_heads,
                    float* out, void* stream) {
  return guarded([&] {
    tq_cache& cache = checked(handle, layer, sequence);
    check_arrays({q}, "q");
    const tq::gpu::Element type = element_of(element);
    const std::scoped_lock lock(cache.mutex);
    const std::size_t count = quantised(cache, layer, sequence);
    if (!cache.host) {
      if (count == 0) return;
      check_arrays({out}, "out");
      return ordered_with(cache, stream, [&] {
        cache.device->quantised_scores(layer, sequence, {q, type}, q_heads, 1, out, count);
      });
    }
    const std::size_t tokens = cache.tokens(layer, sequence),
                      heads = static_cast<std::size_t>(std::max(q_heads, 0));
    std::vector<float> all(heads * tokens);
    cache.host->scores(layer, sequence, floats(q, element), q_heads, all.data());
    if (count == 0) return;
    check_arrays({out}, "out");
    const std::size_t sinks = token_counts(cache.policy(), tokens).sinks;
    for (std::size_t h = 0; h < heads; ++h) std::copy_n(&all[h * tokens + sinks], count, out + h * count);
  });
}

int tq_cache_bytes_used(const tq_cache* cache, tq_cache_bytes* bytes) {
  return guarded([&] {
    require(cache, "cache");
    require(bytes, "bytes");
    const std::shared_lock lock(cache->mutex);
    const tq::CacheBytes used = cache->host ? cache->host->bytes_used() : cache->device->bytes_used();
    *bytes = {used.key_codes + used.value_codes, used.key_scalars + used.value_scalars,
              used.sinks + used.window + used.exact_layers, used.allocated};
  });
}
