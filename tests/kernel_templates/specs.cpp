#include "tests/kernel_templates/specs.h"

#include <map>
#include <tuple>

#include "core/rotation.h"
#include "core/sketch.h"
#include "kernel_templates/spec_text.h"
#include "tests/support/test_seed.h"

namespace tq::test {
namespace {

template <typename Object, typename Kind>
std::shared_ptr<const Object> drawn(Kind kind, int head_dim) {
  static std::map<std::pair<Kind, int>, std::shared_ptr<const Object>> known;
  auto& object = known[{kind, head_dim}];
  if (!object) object = std::make_shared<const Object>(Object::make(kind, head_dim, test_seed()));
  return object;
}

}  // namespace

const std::vector<int>& head_dims() {
  static const std::vector<int> all{64, 80, 96, 128, 192, 256};
  return all;
}

std::vector<int> group_sizes(int head_dim) {
  std::vector<int> sizes;
  for (int size = 16; size <= 128; size *= 2) {
    if (head_dim % size == 0) sizes.push_back(size);
  }
  return sizes;
}

std::vector<gpu::KeySpec> key_specs(int head_dim, int fewest_table_bits) {
  std::vector<gpu::KeySpec> specs;
  for (const auto rotation : {gpu::Mixing::hadamard, gpu::Mixing::dense}) {
    for (int bits = fewest_table_bits; bits <= 4; ++bits) {
      for (const auto rule : {gpu::ScaleRule::norm, gpu::ScaleRule::nc, gpu::ScaleRule::ls})
        specs.push_back({head_dim, bits, false, rule, rotation, gpu::Mixing::hadamard});
      for (const auto sketch : {gpu::Mixing::hadamard, gpu::Mixing::dense})
        specs.push_back({head_dim, bits, true, gpu::ScaleRule::norm, rotation, sketch});
    }
  }
  return specs;
}

std::vector<gpu::GroupSpec> group_specs(int head_dim) {
  std::vector<gpu::GroupSpec> specs;
  for (const int bits : {2, 3, 4, 8}) {
    for (const int size : group_sizes(head_dim)) specs.push_back({head_dim, bits, size});
  }
  return specs;
}

namespace {

ScaleRule rule_of(gpu::ScaleRule rule) {
  switch (rule) {
    case gpu::ScaleRule::norm:
      return ScaleRule::norm;
    case gpu::ScaleRule::nc:
      return ScaleRule::nc;
    case gpu::ScaleRule::ls:
      return ScaleRule::ls;
  }
  return ScaleRule::norm;
}

}  // namespace

KeyConfig config_of(const gpu::KeySpec& spec) {
  KeyConfig config;
  config.mode = spec.prod ? KeyMode::prod : KeyMode::mse;
  config.bits = spec.table_bits + (spec.prod ? 1 : 0);
  config.scale = rule_of(spec.scale);
  config.sketch = spec.sketch == gpu::Mixing::dense ? SketchKind::gaussian : SketchKind::orthogonal;
  return config;
}

ValueConfig rotated_config_of(const gpu::KeySpec& spec) {
  ValueConfig config;
  config.mode = ValueMode::rotated;
  config.bits = spec.table_bits;
  config.scale = rule_of(spec.scale);
  return config;
}

ValueConfig config_of(const gpu::GroupSpec& spec) {
  ValueConfig config;
  config.mode = ValueMode::group;
  config.bits = spec.bits;
  config.group_size = spec.group_size;
  return config;
}

std::shared_ptr<const KeyCodec> codec_of(const gpu::KeySpec& spec) {
  const KeyConfig config = config_of(spec);
  static std::map<std::tuple<int, int, bool, SketchKind>, KeyTables> tables;
  const std::tuple key{spec.head_dim, spec.table_bits, spec.prod, config.sketch};
  if (!tables.contains(key)) tables[key] = default_key_tables(config, spec.head_dim);
  const RotationKind rotation = spec.rotation == gpu::Mixing::dense ? RotationKind::qr : RotationKind::rht;
  return std::make_shared<const KeyCodec>(config, drawn<Rotation>(rotation, spec.head_dim),
                                          spec.prod ? drawn<Sketch>(config.sketch, spec.head_dim) : nullptr,
                                          tables[key]);
}

std::string text_of(const gpu::KeySpec& spec) { return gpu::describe(spec); }

}  // namespace tq::test
