#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <vector>

#include "datasets/hdf5.h"

namespace tq::hdf5 {

// Reads boxes (hyperslabs) of a dataset. Chunks are fetched as stored and decoded here rather than by HDF5: a
// chunk is never inflated beyond its size, one that was never written is an error instead of zeros, and all
// threads inflate. Memory: the chunks in flight (64 MiB as stored, 512 MiB decoded at most) and the cache.
// Throws InputError on damage.
class BoxReader {
 public:
  BoxReader() = default;
  // The dataset has passed check_dataset_storage() and outlives the reader. Chunks that a read covers in part
  // are kept for the next one, up to `cache_bytes`.
  BoxReader(const Object& dataset, std::size_t cache_bytes);

  // Elements [start, start + count) along each axis into `out`, row-major, native byte order. The box lies
  // within the dataset. `dataset` is the one of the constructor.
  void read(const Object& dataset, const Extents& start, const Extents& count, std::byte* out);

 private:
  struct Filter {
    H5Z_filter_t id;
    std::size_t element_bytes;  // shuffle only
  };
  struct Stored {
    Extents at;
    std::uint32_t skipped = 0;  // bit i: filter i was not applied
    std::vector<std::byte> bytes;
  };
  using Cache = std::map<Extents, std::vector<std::byte>>;

  void read_chunks(const Object& dataset, const Extents& start, const Extents& count, std::byte* out);
  void read_with_hdf5(const Object& dataset, const Extents& start, const Extents& count,
                      std::byte* out) const;
  Stored fetch(const Object& dataset, const Extents& at) const;
  const char* decode(const Stored& stored, std::vector<std::byte>& bytes) const;
  void copy_overlap(const std::byte* chunk, const Extents& at, const Extents& start, const Extents& count,
                    std::byte* out) const;

  std::size_t element_bytes_ = 0;
  bool swapped_ = false;  // the file's byte order is not the machine's
  Extents extents_;
  Extents chunk_;  // empty where the dataset is not chunked
  std::size_t chunk_bytes_ = 0;
  std::vector<Filter> filters_;
  std::size_t cache_bytes_ = 0;
  Cache cache_;
};

}  // namespace tq::hdf5
