#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "jit/architecture.h"
#include "jit/compiler.h"
#include "jit/kernel_source.h"
#include "jit/source_tree.h"

namespace tq {

// SHA-256, in hexadecimal, of everything that can change a compiled kernel: the format of the cache, NVRTC's
// identity, the digest of the source tree, the translation unit, the name expression and all options (the
// architecture is one). Each field is preceded by its length. The label is not part of it.
std::string cubin_key(const KernelSource& source, const SourceTree& tree, const Architecture& architecture,
                      const std::string& nvrtc_identity);

// Compiled kernels on disk, one file each, shared by all processes of a user.
//
// Contract: an entry appears whole, by one rename; one that is damaged, truncated or not what its name says
// is a miss, and removed. What goes wrong with the folder (read-only, missing, full) is never an error:
// lookups miss, stores do nothing, and problem() says once why. Any number of processes and threads may use
// one folder.
class CubinCache {
 public:
  static constexpr std::uint64_t kDefaultMaxBytes = std::uint64_t{1} << 30;

  // The folder is made at the first store. Past `max_bytes` a store removes the least recently used entries
  // (by the files' modification times, which a hit brings up to date where they are over a minute old).
  explicit CubinCache(std::string folder, std::uint64_t max_bytes = kDefaultMaxBytes);
  ~CubinCache();
  CubinCache(CubinCache&&) noexcept;
  CubinCache& operator=(CubinCache&&) noexcept;

  std::optional<CompiledImage> find(const std::string& key);
  // False when it could not be written, or is larger than the whole cache may be.
  bool store(const std::string& key, const CompiledImage& image);

  struct Info {
    std::string folder;
    std::uint64_t entries = 0, bytes = 0, max_bytes = 0;
  };
  Info info() const;
  // Removes all entries and temporaries; returns the number of entries.
  std::uint64_t clear();

  // The first thing that went wrong with the folder, one line; empty while nothing has.
  std::string problem() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// $XDG_CACHE_HOME/turboquant-lab, else ~/.cache/turboquant-lab; empty where neither variable is set.
std::string default_cache_folder();

}  // namespace tq
