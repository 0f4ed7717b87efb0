#include "experiments/bench/random_vectors.h"

#include <algorithm>

#include "core/half.h"

namespace tq::bench {
namespace {

constexpr std::size_t kPeriod = (std::size_t{1} << 20) + 7;

}  // namespace

DeviceBuffer random_vectors(const Device& device, std::size_t count, gpu::Element element, Random& random) {
  std::vector<float> values(std::min(count, kPeriod));
  for (float& value : values) value = static_cast<float>(random.normal());
  const std::size_t size = static_cast<std::size_t>(gpu::element_bytes(element));
  DeviceBuffer buffer(device, count * size);
  const CurrentContext current(device);
  if (element == gpu::Element::f32) {
    upload(buffer.address(), values);
  } else {
    std::vector<std::uint16_t> halves(values.size());
    float_to_half(values.data(), halves.data(), values.size());
    upload(buffer.address(), halves);
  }
  for (std::size_t filled = values.size() * size; filled < buffer.bytes(); filled *= 2)
    copy_on_device(buffer.address() + filled, buffer.address(), std::min(filled, buffer.bytes() - filled));
  device.synchronize();
  return buffer;
}

std::vector<float> download_vectors(const Device& device, DeviceAddress from, std::size_t count,
                                    gpu::Element element) {
  const CurrentContext current(device);
  std::vector<float> values(count);
  if (element == gpu::Element::f32) {
    download(values, from);
  } else {
    std::vector<std::uint16_t> halves(count);
    download(halves, from);
    half_to_float(halves.data(), values.data(), count);
  }
  return values;
}

void poison(const Device& device, const DeviceBuffer& buffer) {
  const CurrentContext current(device);
  fill(buffer.address(), 0xff, buffer.bytes());
  device.synchronize();
}

}  // namespace tq::bench
