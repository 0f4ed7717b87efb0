#pragma once

#include <memory>
#include <string>
#include <vector>

#include "core/codec_config.h"
#include "core/key_codec.h"
#include "shared/spec.h"

// Every specialisation that the issue of the GPU codec asks for, listed once more, apart from catalogue.cpp.
namespace tq::test {

const std::vector<int>& head_dims();
// Group sizes of 16, 32, 64, 128 that divide d.
std::vector<int> group_sizes(int head_dim);

// mse of `fewest` .. 4 bits with every scale rule, prod of so many table bits with both sketches; both
// rotations.
std::vector<gpu::KeySpec> key_specs(int head_dim, int fewest_table_bits);
std::vector<gpu::GroupSpec> group_specs(int head_dim);

// The configuration of core that a specialisation stands for.
KeyConfig config_of(const gpu::KeySpec& spec);
ValueConfig rotated_config_of(const gpu::KeySpec& spec);
ValueConfig config_of(const gpu::GroupSpec& spec);

// A codec of that configuration. Its random objects are drawn once for each head_dim and run.
std::shared_ptr<const KeyCodec> codec_of(const gpu::KeySpec& spec);

// One line, for messages of failing tests.
std::string text_of(const gpu::KeySpec& spec);

}  // namespace tq::test
