#include "tests/gpu/gpu_support.h"

#include <fmt/format.h>

#include <atomic>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <thread>

#include "core/half.h"
#include "tests/support/reference.h"
#include "tests/support/test_seed.h"

namespace tq::test {

GpuContext& gpu() {
  static GpuContext context([] {
    GpuOptions options;
    if (const char* folder = std::getenv("TQ_KERNEL_CACHE")) options.cache_folder = folder;
    return options;
  }());
  return context;
}

void in_parallel(std::uint32_t purpose, std::size_t count,
                 const std::function<void(std::size_t, Random&)>& body) {
  static_cast<void>(test_seed());  // printed before the threads start
  std::atomic<std::size_t> next = 0;
  std::vector<std::thread> threads;
  for (unsigned t = 0; t < std::max(1u, std::thread::hardware_concurrency()); ++t) {
    threads.emplace_back([&] {
      for (std::size_t i; (i = next++) < count;) {
        Random random = test_random(purpose * 100000 + static_cast<std::uint32_t>(i));
        try {
          body(i, random);
        } catch (const std::exception& error) {
          FAIL_CHECK("case ", i, ": ", error.what());
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

GuardedBytes::GuardedBytes(std::size_t bytes) : bytes_(bytes), buffer_(gpu().device(), bytes + 2 * kGuard) {
  const CurrentContext current(gpu().device());
  fill(buffer_.address(), 0xff, buffer_.bytes());
}

std::vector<std::uint8_t> GuardedBytes::read() const {
  const CurrentContext current(gpu().device());
  std::vector<std::uint8_t> all(buffer_.bytes());
  gpu().device().synchronize();
  download(all, buffer_.address());
  bool intact = true;
  for (std::size_t i = 0; i < kGuard; ++i)
    intact = intact && all[i] == 0xff && all[all.size() - 1 - i] == 0xff;
  CHECK_MESSAGE(intact, "a kernel wrote outside its buffer");
  return {all.begin() + kGuard, all.end() - static_cast<std::ptrdiff_t>(kGuard)};
}

std::vector<std::uint8_t> to_element(const std::vector<float>& values, gpu::Element element) {
  std::vector<std::uint8_t> bytes(values.size() * static_cast<std::size_t>(gpu::element_bytes(element)));
  if (element == gpu::Element::f32) {
    std::memcpy(bytes.data(), values.data(), bytes.size());
    return bytes;
  }
  std::vector<std::uint16_t> halves(values.size());
  if (element == gpu::Element::f16) {
    float_to_half(values.data(), halves.data(), values.size());
  } else {
    float_to_bfloat16(values.data(), halves.data(), values.size());
  }
  std::memcpy(bytes.data(), halves.data(), bytes.size());
  return bytes;
}

std::vector<float> from_element(std::span<const std::uint8_t> bytes, gpu::Element element) {
  std::vector<float> values(bytes.size() / static_cast<std::size_t>(gpu::element_bytes(element)));
  if (element == gpu::Element::f32) {
    std::memcpy(values.data(), bytes.data(), bytes.size());
    return values;
  }
  std::vector<std::uint16_t> halves(values.size());
  std::memcpy(halves.data(), bytes.data(), bytes.size());
  if (element == gpu::Element::f16) {
    half_to_float(halves.data(), values.data(), values.size());
  } else {
    bfloat16_to_float(halves.data(), values.data(), values.size());
  }
  return values;
}

std::vector<float> rounded(const std::vector<float>& values, gpu::Element element) {
  return from_element(to_element(values, element), element);
}

DeviceInput::DeviceInput(const std::vector<float>& values, gpu::Element element)
    : element_(element), bytes_(to_element(values, element)) {}

Attention reference_attention(const KvCache& cache, int layer, int sequence, std::span<const float> q,
                              int q_heads, double softmax_scale) {
  const CacheLayer& shape = cache.layer(layer);
  const TokenStore& store = cache.store(layer, sequence);
  const std::size_t d = static_cast<std::size_t>(shape.head_dim), tokens = store.tokens();
  const TokenCounts counts = store.counts();
  Attention result;
  const int group = q_heads / shape.num_kv_heads;
  for (int head = 0; head < shape.num_kv_heads; ++head) {
    std::vector<float> k(tokens * d), v(tokens * d);
    const auto exact = [&](TokenStore::Part part, std::size_t count, std::size_t at) {
      store.read_exact(part, TokenStore::Side::keys, head, 0, count, k.data() + at * d);
      store.read_exact(part, TokenStore::Side::values, head, 0, count, v.data() + at * d);
    };
    if (counts.sinks > 0) exact(TokenStore::Part::sinks, counts.sinks, 0);
    for (std::size_t page = 0; page < store.pages(); ++page) {
      const std::size_t at = (counts.sinks + page * kPageTokens) * d, rows = store.page_rows(page);
      shape.key_codec(head).decode_block(store.keys(page, head), rows, false, k.data() + at);
      const ValueCodec& values = shape.value_codec(head);
      std::vector<float> frame(rows * d);
      values.decode_block(store.values(page, head), rows, frame.data());
      if (values.rotated() != nullptr) {
        values.rotated()->rotation().inverse(frame.data(), v.data() + at, rows);
      } else {
        std::copy(frame.begin(), frame.end(), v.begin() + static_cast<std::ptrdiff_t>(at));
      }
    }
    if (counts.window > 0) exact(TokenStore::Part::window, counts.window, counts.sinks + counts.quantised);

    for (int g = 0; g < group; ++g) {
      const float* query = q.data() + static_cast<std::size_t>(head * group + g) * d;
      std::vector<double> scores(tokens), out(d);
      double largest = -std::numeric_limits<double>::infinity(), sum = 0;
      for (std::size_t t = 0; t < tokens; ++t) {
        double score = 0;
        for (std::size_t j = 0; j < d; ++j)
          score += static_cast<double>(query[j]) * static_cast<double>(k[t * d + j]);
        scores[t] = score * softmax_scale;
        largest = std::max(largest, scores[t]);
      }
      for (std::size_t t = 0; t < tokens; ++t) {
        const double weight = std::exp(scores[t] - largest);
        sum += weight;
        for (std::size_t j = 0; j < d; ++j) out[j] += weight * static_cast<double>(v[t * d + j]);
      }
      for (const double x : out) result.out.push_back(tokens == 0 ? 0.0 : x / sum);
      result.lse.push_back(tokens == 0 ? -std::numeric_limits<double>::infinity() : largest + std::log(sum));
    }
  }
  return result;
}

Agreement compare_attention(const KvCache& cache, int layer, const std::vector<float>& q, int q_heads,
                            double softmax_scale, const std::vector<float>& out,
                            const std::vector<float>& lse) {
  const std::size_t d = static_cast<std::size_t>(cache.layer(layer).head_dim),
                    heads = static_cast<std::size_t>(q_heads);
  Agreement agreement;
  const double nan = std::numeric_limits<double>::quiet_NaN();
  for (int s = 0; s < cache.batch(); ++s) {
    const std::size_t first = static_cast<std::size_t>(s) * heads;
    const Attention expected = reference_attention(
        cache, layer, s, std::span(q).subspan(first * d, heads * d), q_heads, softmax_scale);
    for (std::size_t h = 0; h < heads; ++h) {
      const std::vector<double> is = reference::widen(std::span(out).subspan((first + h) * d, d));
      const std::span<const double> should = std::span(expected.out).subspan(h * d, d);
      double error = reference::relative_error(is, should), cosine = 1, difference = 0;
      for (std::size_t j = 0; j < d; ++j) difference = std::max(difference, std::abs(is[j] - should[j]));
      if (reference::norm(should) > 0) cosine = reference::cosine(is, should);
      double gap = std::abs(static_cast<double>(lse[first + h]) - expected.lse[h]);
      if (std::isinf(expected.lse[h])) gap = static_cast<double>(lse[first + h]) == expected.lse[h] ? 0 : nan;
      // Written so that a NaN stays.
      if (!(error <= agreement.worst_error)) agreement.worst_error = error;
      if (!(cosine >= agreement.worst_cosine)) agreement.worst_cosine = cosine;
      if (!(gap <= agreement.worst_lse)) agreement.worst_lse = gap;
      if (!(difference <= agreement.largest_difference)) agreement.largest_difference = difference;
    }
  }
  return agreement;
}

Agreement check_attend(gpu::GpuKvCache& cache, int layer, int q_heads, gpu::Element element, Random& random) {
  const CacheLayer& shape = cache.layer(layer);
  const std::size_t rows = static_cast<std::size_t>(cache.batch() * q_heads),
                    d = static_cast<std::size_t>(shape.head_dim);
  const std::vector<float> q = rounded(normal_values(random, rows * d), element);
  const DeviceInput queries(q, element);
  const Guarded<float> out(rows * d), lse(rows);
  const float scale = 1 / std::sqrt(static_cast<float>(d));
  cache.attend_batch(layer, queries.vectors(), q_heads, scale, out.data(), gpu::Element::f32, lse.data());
  const KvCache host = cache.to_host();
  return compare_attention(host, layer, q, q_heads, static_cast<double>(scale), out.read(), lse.read());
}

std::string describe(const Agreement& agreement) {
  return fmt::format("relative error {:.2e}, cosine {:.8f}, lse {:.2e}, largest difference {:.2e}",
                     agreement.worst_error, agreement.worst_cosine, agreement.worst_lse,
                     agreement.largest_difference);
}

}  // namespace tq::test
