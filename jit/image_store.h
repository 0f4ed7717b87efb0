#pragma once

#include <optional>
#include <string>

#include "jit/compiler.h"
#include "jit/cubin_cache.h"
#include "jit/source_tree.h"

namespace tq {

// Compiled kernels from the disk cache, else from the compiler. Needs no GPU. Safe on many threads at once.
class ImageStore {
 public:
  explicit ImageStore(SourceTree tree, std::optional<CubinCache> cache = {});

  struct Found {
    CompiledImage image;
    bool from_cache = false;
  };
  // Throws what compile() throws.
  Found get(const KernelSource& source, const Architecture& architecture);

  const SourceTree& tree() const { return tree_; }
  // What is wrong with the cache's folder, one line, or empty.
  std::string cache_problem() const { return cache_ ? cache_->problem() : std::string(); }

 private:
  SourceTree tree_;
  std::optional<CubinCache> cache_;
};

}  // namespace tq
