#pragma once

#include <memory>
#include <vector>

#include "core/key_codec.h"
#include "core/value_codec.h"
#include "jit/memory.h"
#include "shared/params.h"

// A codec's objects in device memory, as kernels read them.
namespace tq::gpu {

// The specialisation that a codec asks for. Throws UsageError where there are no kernels for it.
KeySpec key_spec(const KeyCodec& codec);
ValueSpec value_spec(const ValueCodec& codec);

class DeviceKeyTables {
 public:
  // One codec for all heads or one a head, of one configuration, rotation and sketch.
  DeviceKeyTables(const Device& device, const std::vector<std::shared_ptr<const KeyCodec>>& heads);
  DeviceKeyTables(const Device& device, const std::vector<const KeyCodec*>& heads);

  const KeySpec& spec() const { return spec_; }
  int per_head() const { return per_head_ ? 1 : 0; }

  // Vectors into the frame in which tiles hold codes, and back.
  MixingParams rotation() const { return forward_; }
  MixingParams rotation_back() const { return backward_; }
  // Residuals of that frame into the sketch, and back.
  MixingParams sketch() const { return sketch_forward_; }
  MixingParams sketch_back() const { return sketch_backward_; }

  const QuantiserTable* tables() const { return tables_.as<const QuantiserTable>(); }
  const float* centroids() const { return centroids_.as<const float>(); }
  int centroid_stride() const { return per_head_ ? 1 << spec_.table_bits : 0; }
  const float* alpha_over_d() const { return alpha_.as<const float>(); }

 private:
  KeySpec spec_;
  bool per_head_;
  DeviceBuffer tables_, centroids_, alpha_;
  DeviceBuffer signs_, permutation_, matrix_, transposed_;
  DeviceBuffer sketch_signs_, sketch_permutation_, sketch_matrix_, sketch_transposed_;
  MixingParams forward_{}, backward_{}, sketch_forward_{}, sketch_backward_{};
};

}  // namespace tq::gpu
