#include "kernel_templates/device_tables.h"

#include "core/dense.h"
#include "kernel_templates/quantiser_table.h"
#include "kernel_templates/shapes.h"

namespace tq::gpu {
namespace {

template <typename Range>
DeviceBuffer to_device(const Device& device, const Range& values) {
  DeviceBuffer buffer(device, std::size(values) * sizeof(*std::data(values)));
  const CurrentContext current(device);
  if (buffer.bytes() > 0) upload(buffer.address(), values);
  return buffer;
}

std::vector<const KeyCodec*> pointers(const std::vector<std::shared_ptr<const KeyCodec>>& heads) {
  std::vector<const KeyCodec*> result;
  for (const auto& head : heads) result.push_back(head.get());
  return result;
}

}  // namespace

KeySpec key_spec(const KeyCodec& codec) {
  const int d = codec.head_dim();
  const KeyConfig& config = codec.config();
  require_kernels(config, d);
  KeySpec spec{};
  spec.head_dim = d;
  spec.table_bits = config.table_bits();
  spec.prod = config.mode == KeyMode::prod;
  spec.scale = spec.prod                             ? ScaleRule::norm
               : config.scale == tq::ScaleRule::norm ? ScaleRule::norm
               : config.scale == tq::ScaleRule::nc   ? ScaleRule::nc
                                                     : ScaleRule::ls;
  spec.rotation = codec.rotation().kind() == RotationKind::rht ? Mixing::hadamard : Mixing::dense;
  spec.sketch =
      spec.prod && codec.sketch()->kind() == SketchKind::gaussian ? Mixing::dense : Mixing::hadamard;
  return spec;
}

ValueSpec value_spec(const ValueCodec& codec) {
  const ValueConfig& config = codec.config();
  require_kernels(config, codec.head_dim());
  ValueSpec spec{};
  spec.rotated = config.mode == ValueMode::rotated;
  if (spec.rotated) {
    spec.table = key_spec(*codec.rotated());
  } else {
    spec.group = {codec.head_dim(), config.bits, config.group_size};
  }
  return spec;
}

DeviceKeyTables::DeviceKeyTables(const Device& device,
                                 const std::vector<std::shared_ptr<const KeyCodec>>& heads)
    : DeviceKeyTables(device, pointers(heads)) {}

DeviceKeyTables::DeviceKeyTables(const Device& device, const std::vector<const KeyCodec*>& heads)
    : spec_(key_spec(*heads.front())), per_head_(heads.size() > 1) {
  std::vector<QuantiserTable> tables;
  std::vector<float> centroids, alpha;
  const float d = static_cast<float>(spec_.head_dim);
  for (const KeyCodec* head : heads) {
    tables.push_back(quantiser_table(head->tables().codebook));
    for (const double c : head->tables().codebook.centroids) centroids.push_back(static_cast<float>(c));
    alpha.push_back(static_cast<float>(head->tables().qjl_scale) / d);
  }
  tables_ = to_device(device, tables);
  centroids_ = to_device(device, centroids);
  alpha_ = to_device(device, alpha);

  const KeyCodec& codec = *heads.front();
  const Rotation& rotation = codec.rotation();
  if (spec_.rotation == Mixing::hadamard) {
    signs_ = to_device(device, rotation.signs());
    permutation_ = to_device(device, rotation.permutation());
    forward_ = {signs_.as<const float>(), permutation_.as<const u16>(), nullptr};
    backward_ = forward_;
  } else {
    // Row k of what the kernels read is what input k adds: the transpose, going forward.
    matrix_ = to_device(device, rotation.matrix());
    transposed_ = to_device(device, rotation.transposed());
    forward_ = {nullptr, nullptr, transposed_.as<const float>()};
    backward_ = {nullptr, nullptr, matrix_.as<const float>()};
  }
  if (!spec_.prod) return;
  const Sketch& sketch = *codec.sketch();
  if (spec_.sketch == Mixing::hadamard) {
    sketch_signs_ = to_device(device, sketch.rht().signs());
    sketch_permutation_ = to_device(device, sketch.rht().permutation());
    sketch_forward_ = {sketch_signs_.as<const float>(), sketch_permutation_.as<const u16>(), nullptr};
    sketch_backward_ = sketch_forward_;
    return;
  }
  // Tiles leave out the rotation's permutation; the sketch's matrix takes it in: column i of S meets
  // coordinate permutation[i].
  const std::size_t size = static_cast<std::size_t>(spec_.head_dim);
  std::vector<float> matrix(sketch.matrix().begin(), sketch.matrix().end());
  if (spec_.rotation == Mixing::hadamard) {
    for (std::size_t a = 0; a < size; ++a) {
      for (std::size_t i = 0; i < size; ++i)
        matrix[a * size + rotation.permutation()[i]] = sketch.matrix()[a * size + i];
    }
  }
  sketch_matrix_ = to_device(device, matrix);
  sketch_transposed_ = to_device(device, transposed(matrix, size));
  sketch_forward_ = {nullptr, nullptr, sketch_transposed_.as<const float>()};
  sketch_backward_ = {nullptr, nullptr, sketch_matrix_.as<const float>()};
}

}  // namespace tq::gpu
