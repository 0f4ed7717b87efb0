#pragma once

#include <cstddef>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include "core/key_codec.h"
#include "core/value_codec.h"
#include "experiments/c_api/turboquant.h"
#include "kernel_templates/gpu_codec.h"
#include "kernel_templates/gpu_context.h"

struct tq_gpu {
  std::shared_ptr<tq::GpuContext> context;
};

// Exactly one of `keys` and `values` is filled: one codec for all heads or one a head.
struct tq_codec {
  std::vector<std::shared_ptr<const tq::KeyCodec>> keys;
  std::vector<std::shared_ptr<const tq::ValueCodec>> values;

  bool is_keys() const { return !keys.empty(); }
  std::size_t heads() const { return is_keys() ? keys.size() : values.size(); }
  int head_dim() const { return is_keys() ? keys.front()->head_dim() : values.front()->head_dim(); }
  // What keys and rotated values are coded with; null for group values.
  const tq::KeyCodec* table_codec(std::size_t head) const {
    return is_keys() ? keys[head].get() : values[head]->rotated();
  }

  // The codec on a GPU, made at the first call for it.
  struct OnDevice {
    std::shared_ptr<tq::GpuContext> gpu;  // outlives what follows
    std::optional<tq::gpu::GpuKeyCodec> keys;
    std::optional<tq::gpu::GpuValueCodec> values;
  };
  OnDevice& on_device(const tq_gpu& gpu) const;

 private:
  mutable std::mutex mutex_;
  mutable std::map<const tq::GpuContext*, std::unique_ptr<OnDevice>> on_devices_;
};

namespace tq::c_api {

// Throws UsageError for null, and for a number of heads that the codec does not have.
const tq_codec& checked(const tq_codec* codec, std::size_t heads);
// Throws UsageError where an array that the codec has is missing.
const tq_rows& checked(const tq_codec& codec, const tq_rows* encoded);
tq_codec_info describe(const tq_codec& codec);
// Throws UsageError for what is no tq_element.
gpu::Element element_of(int element);

}  // namespace tq::c_api
