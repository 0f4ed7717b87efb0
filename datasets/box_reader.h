#pragma once

#include <cstddef>
#include <map>
#include <vector>

#include "datasets/input_tree.h"

namespace tq::hdf5 {

// Reads boxes (hyperslabs) of a dataset. Chunks are fetched as stored and decoded here rather than by HDF5: a
// chunk is never inflated beyond its size, one that was never written is an error instead of zeros, and all
// threads inflate. Memory: the chunks in flight (64 MiB as stored, 512 MiB decoded at most) and the cache.
// Throws InputError on damage.
class BoxReader {
 public:
  BoxReader() = default;
  // Chunks that a read covers in part are kept for the next one, up to `cache_bytes`.
  BoxReader(InputDataset dataset, std::size_t cache_bytes);

  const InputDataset& dataset() const { return dataset_; }

  // Elements [start, start + count) along each axis into `out`, row-major, native byte order. The box lies
  // within the dataset.
  void read(const Extents& start, const Extents& count, std::byte* out);

 private:
  using Cache = std::map<Extents, std::vector<std::byte>>;

  void read_chunks(const Extents& start, const Extents& count, std::byte* out);
  void read_pieces(const Extents& start, const Extents& count, std::byte* out) const;
  const char* decode(std::uint32_t skipped, std::vector<std::byte>& bytes) const;
  void copy_overlap(const std::byte* chunk, const Extents& at, const Extents& start, const Extents& count,
                    std::byte* out) const;

  InputDataset dataset_;
  std::size_t element_bytes_ = 0;
  Extents chunk_;  // empty where the dataset is not chunked
  std::size_t chunk_bytes_ = 0;
  std::size_t cache_bytes_ = 0;
  Cache cache_;
};

}  // namespace tq::hdf5
