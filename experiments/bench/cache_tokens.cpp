#include "experiments/bench/cache_tokens.h"

#include <stdexcept>

#include "experiments/bench/random_vectors.h"

namespace tq::bench {

CacheTokens::CacheTokens(Run& run, int kv_heads, int d, std::size_t tokens)
    : row_(static_cast<std::size_t>(kv_heads * d)),
      device_k_(random_vectors(run.gpu.device(), tokens * row_, gpu::Element::f16, run.random)),
      device_v_(random_vectors(run.gpu.device(), tokens * row_, gpu::Element::f16, run.random)),
      host_k_(download_vectors(run.gpu.device(), device_k_.address(), tokens * row_, gpu::Element::f16)),
      host_v_(download_vectors(run.gpu.device(), device_v_.address(), tokens * row_, gpu::Element::f16)) {}

void add_differences(const CacheLayer& layer, const TokenStore& is, const TokenStore& should,
                     CodeDifferences& differences) {
  if (is.counts() != should.counts())
    throw std::logic_error("two caches of the same tokens divide them otherwise");
  const std::size_t window = is.counts().window, d = static_cast<std::size_t>(layer.head_dim);
  std::vector<float> a(window * d), b(window * d);
  for (int head = 0; head < layer.num_kv_heads; ++head) {
    for (std::size_t page = 0; page < is.pages(); ++page) {
      const std::size_t rows = is.page_rows(page);
      differences.add(layer.key_codec(head), is.keys(page, head), should.keys(page, head), rows);
      differences.add(layer.value_codec(head), is.values(page, head), should.values(page, head), rows);
    }
    for (const TokenStore::Side side : {TokenStore::Side::keys, TokenStore::Side::values}) {
      is.read_exact(TokenStore::Part::window, side, head, 0, window, a.data());
      should.read_exact(TokenStore::Part::window, side, head, 0, window, b.data());
      differences.add_exact(a.data(), b.data(), window * d);
    }
  }
}

}  // namespace tq::bench
