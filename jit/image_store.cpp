#include "jit/image_store.h"

#include <utility>

#include "jit/nvrtc_api.h"

namespace tq {

ImageStore::ImageStore(SourceTree tree, std::optional<CubinCache> cache)
    : tree_(std::move(tree)), cache_(std::move(cache)) {}

ImageStore::Found ImageStore::get(const KernelSource& source, const Architecture& architecture) {
  if (!cache_) return {compile(source, tree_, architecture), false};
  const std::string key = cubin_key(source, tree_, architecture, nvrtc::identity());
  if (std::optional<CompiledImage> image = cache_->find(key)) return {std::move(*image), true};
  Found found{compile(source, tree_, architecture), false};
  cache_->store(key, found.image);
  return found;
}

}  // namespace tq
