#pragma once

#include <doctest/doctest.h>

#include <cstdint>
#include <cstring>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "core/kv_cache.h"
#include "jit/memory.h"
#include "kernel_templates/gpu_context.h"
#include "kernel_templates/gpu_kv_cache.h"

namespace tq::test {

// The first device; kernels cached in $TQ_KERNEL_CACHE where it is set. Opened once.
GpuContext& gpu();

// Calls body(i, random) for i below count on all cores, each with a generator of its own: most of the time
// goes into compiling kernels, which takes one core each.
void in_parallel(std::uint32_t purpose, std::size_t count,
                 const std::function<void(std::size_t, Random&)>& body);

// Device memory between guards, every byte 0xff before a kernel writes it: what it leaves out reads as NaN,
// and what it writes beyond the end is seen.
class GuardedBytes {
 public:
  explicit GuardedBytes(std::size_t bytes);
  DeviceAddress address() const { return buffer_.address() + kGuard; }
  // Waits for the device; fails the test when a guard has changed.
  std::vector<std::uint8_t> read() const;

 private:
  static constexpr std::size_t kGuard = 4096;
  std::size_t bytes_;
  DeviceBuffer buffer_;
};

template <typename T>
class Guarded {
 public:
  explicit Guarded(std::size_t count) : bytes_(count * sizeof(T)) {}
  explicit Guarded(const std::vector<T>& values) : bytes_(values.size() * sizeof(T)) {
    const CurrentContext current(gpu().device());
    if (!values.empty()) upload(bytes_.address(), values);
  }
  T* data() const { return reinterpret_cast<T*>(bytes_.address()); }
  std::vector<T> read() const {
    const std::vector<std::uint8_t> bytes = bytes_.read();
    std::vector<T> values(bytes.size() / sizeof(T));
    if (!bytes.empty()) std::memcpy(values.data(), bytes.data(), bytes.size());
    return values;
  }

 private:
  GuardedBytes bytes_;
};

// float32 as an element type's bytes, and back; and what a value becomes on the way.
std::vector<std::uint8_t> to_element(const std::vector<float>& values, gpu::Element element);
std::vector<float> from_element(std::span<const std::uint8_t> bytes, gpu::Element element);
std::vector<float> rounded(const std::vector<float>& values, gpu::Element element);

// Poisoned device vectors with the values in them.
class DeviceInput {
 public:
  DeviceInput(const std::vector<float>& values, gpu::Element element);
  gpu::DeviceVectors vectors() const { return {bytes_.data(), element_}; }
  void* data() const { return bytes_.data(); }

 private:
  gpu::Element element_;
  Guarded<std::uint8_t> bytes_;
};

struct Attention {
  std::vector<double> out;  // q_heads x d
  std::vector<double> lse;
};
// softmax(scale q k^) v^ in float64 over what a host cache stores of one sequence.
Attention reference_attention(const KvCache& cache, int layer, int sequence, std::span<const float> q,
                              int q_heads, double softmax_scale);

struct Agreement {
  double worst_error = 0;  // ||out - reference|| / ||reference|| of a head
  double worst_cosine = 1;
  double worst_lse = 0;           // absolute
  double largest_difference = 0;  // of one output
};
// Compares `out` and `lse` of all sequences with the reference; NaN never agrees.
Agreement compare_attention(const KvCache& cache, int layer, const std::vector<float>& q, int q_heads,
                            double softmax_scale, const std::vector<float>& out,
                            const std::vector<float>& lse);

// One attend_batch of the cache with random queries against the reference over the same codes.
Agreement check_attend(gpu::GpuKvCache& cache, int layer, int q_heads, gpu::Element element, Random& random);

std::string describe(const Agreement&);

}  // namespace tq::test
