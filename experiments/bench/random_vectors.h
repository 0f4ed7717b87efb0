#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "core/random.h"
#include "jit/memory.h"
#include "shared/types.h"

namespace tq::bench {

// `count` normal values in device memory: about a million of them, repeated with a period that no head_dim
// divides, so that vectors are not.
DeviceBuffer random_vectors(const Device& device, std::size_t count, gpu::Element element, Random& random);

// `count` elements in device memory, float32 or binary16, as float32.
std::vector<float> download_vectors(const Device& device, DeviceAddress from, std::size_t count,
                                    gpu::Element element);

// Every byte 0xff: what a kernel leaves out reads as NaN.
void poison(const Device& device, const DeviceBuffer& buffer);

}  // namespace tq::bench
