#include <cstdio>
#include <limits>

#include "core/error.h"
#include "experiments/c_api/handles.h"
#include "experiments/c_api/last_error.h"
#include "jit/cubin_cache.h"
#include "jit/nvrtc_api.h"
#include "kernel_templates/tuning_file.h"

// Codecs over arrays in device memory.

namespace tq::c_api {
namespace {

template <typename Codec>
std::vector<const Codec*> pointers(const std::vector<std::shared_ptr<const Codec>>& codecs) {
  std::vector<const Codec*> result;
  for (const auto& codec : codecs) result.push_back(codec.get());
  return result;
}

// [head][row][d], contiguous.
gpu::VectorView view(const void* data, const tq_codec& codec, std::size_t rows) {
  const gpu::i64 d = codec.head_dim(), head = d * static_cast<gpu::i64>(rows);
  return {const_cast<void*>(data), 0, head, d};
}

gpu::CanonicalKeys key_arrays(const tq_rows& rows) {
  return {rows.codes, rows.scales, rows.signs, rows.residual_norms};
}
gpu::CanonicalGroups group_arrays(const tq_rows& rows) { return {rows.codes, rows.zeros, rows.scales}; }

// The largest grid has so many heads, and kernels count rows in 32 bits.
void check_count(std::size_t heads, std::size_t rows) {
  constexpr std::size_t kMostHeads = 65535, kMostRows = std::numeric_limits<int>::max() - 64;
  if (heads > kMostHeads || rows > kMostRows) {
    throw UsageError("{} heads of {} rows: one call takes at most {} of {}", heads, rows, kMostHeads,
                     kMostRows);
  }
}

// Calls body(codec on the device, vectors, heads, rows) unless there is nothing to do.
template <typename Body>
void with_device(const tq_codec* handle, tq_gpu* gpu, const void* vectors, const tq_rows* encoded,
                 std::size_t heads, std::size_t rows, const Body& body) {
  const tq_codec& codec = checked(handle, heads);
  require(gpu, "gpu");
  check_count(heads, rows);
  if (heads == 0 || rows == 0) return;
  require(vectors, "vectors");
  checked(codec, encoded);
  body(codec.on_device(*gpu), view(vectors, codec, rows), static_cast<int>(heads), static_cast<int>(rows));
}

}  // namespace

gpu::Element element_of(int element) {
  switch (element) {
    case TQ_FLOAT32:
      return gpu::Element::f32;
    case TQ_FLOAT16:
      return gpu::Element::f16;
    case TQ_BFLOAT16:
      return gpu::Element::bf16;
    default:
      throw UsageError("element is {}, must be TQ_FLOAT32, TQ_FLOAT16 or TQ_BFLOAT16", element);
  }
}

}  // namespace tq::c_api

tq_codec::OnDevice& tq_codec::on_device(const tq_gpu& gpu) const {
  const std::scoped_lock lock(mutex_);
  std::unique_ptr<OnDevice>& found = on_devices_[gpu.context.get()];
  if (found) return *found;
  auto made = std::make_unique<OnDevice>();
  made->gpu = gpu.context;
  if (is_keys()) {
    made->keys.emplace(*gpu.context, tq::c_api::pointers(keys), tq::gpu::Side::keys);
  } else {
    made->values.emplace(*gpu.context, tq::c_api::pointers(values));
  }
  found = std::move(made);
  return *found;
}

using namespace tq::c_api;

int tq_gpu_available(char* reason, size_t size) {
  const int code = guarded([] {
    if (tq::Device::count() == 0) throw tq::SystemError("no GPU: the NVIDIA driver finds none");
    tq::nvrtc::api();
  });
  if (reason != nullptr && size > 0) std::snprintf(reason, size, "%s", code == 0 ? "" : last_error());
  return code == 0 ? 1 : 0;
}

int tq_gpu_open(int ordinal, const char* cache_folder, tq_gpu** gpu) {
  return guarded([&] {
    require(gpu, "gpu");
    tq::GpuOptions options;
    options.ordinal = ordinal;
    options.cache_folder = cache_folder == nullptr ? tq::default_cache_folder() : cache_folder;
    options.tuning_file = tq::tuning_file(options.cache_folder);
    auto made = std::make_unique<tq_gpu>();
    made->context = std::make_shared<tq::GpuContext>(options);
    if (const std::string& problem = made->context->tuning_problem(); !problem.empty())
      std::fprintf(stderr, "turboquant: %s\n", problem.c_str());
    *gpu = made.release();
  });
}

void tq_gpu_destroy(tq_gpu* gpu) { delete gpu; }

int tq_encode_device(const tq_codec* codec, tq_gpu* gpu, const void* x, tq_element element, size_t heads,
                     size_t rows, const tq_rows* encoded, void* stream) {
  return guarded([&] {
    with_device(codec, gpu, x, encoded, heads, rows,
                [&](tq_codec::OnDevice& on, const auto& vectors, int h, int r) {
                  const tq::StreamRef work = tq::StreamRef::from_pointer(stream);
                  const tq::gpu::Element type = element_of(element);
                  if (on.values && !on.values->rotated()) {
                    on.values->encode(vectors, type, h, r, group_arrays(*encoded), work);
                  } else {
                    (on.keys ? *on.keys : *on.values->rotated())
                        .encode(vectors, type, h, r, key_arrays(*encoded), work);
                  }
                });
  });
}

int tq_decode_device(const tq_codec* codec, tq_gpu* gpu, const tq_rows* encoded, size_t heads, size_t rows,
                     void* out, tq_element element, void* stream) {
  return guarded([&] {
    with_device(codec, gpu, out, encoded, heads, rows,
                [&](tq_codec::OnDevice& on, const auto& vectors, int h, int r) {
                  const tq::StreamRef work = tq::StreamRef::from_pointer(stream);
                  const tq::gpu::Element type = element_of(element);
                  if (on.values && !on.values->rotated()) {
                    tq::gpu::check_alignment(vectors, type, "decode");
                    on.values->decode(group_arrays(*encoded), h, r, vectors, type, work);
                  } else {
                    (on.keys ? *on.keys : *on.values->rotated())
                        .decode(key_arrays(*encoded), h, r, vectors, type, work);
                  }
                });
  });
}
