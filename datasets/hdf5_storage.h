#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "datasets/hdf5.h"

namespace tq::hdf5 {

// What reading needs to know of a dataset, as plain values.
struct DatasetInfo {
  ElementKind kind{};
  std::size_t element_bytes = 0;
  bool big_endian = false;
  Extents extents;
  Extents chunk;  // empty where the dataset is not chunked
  std::vector<Filter> filters;
  std::size_t stored_bytes = 0;  // compressed
};
template <typename Archive>
void fields(Archive& archive, DatasetInfo& info) {
  archive(info.kind, info.element_bytes, info.big_endian, info.extents, info.chunk, info.filters,
          info.stored_bytes);
}

// A chunk as it lies in the file.
struct StoredChunk {
  std::size_t bytes = 0;
  std::uint32_t skipped = 0;  // bit i: filter i was not applied
};
template <typename Archive>
void fields(Archive& archive, StoredChunk& chunk) {
  archive(chunk.bytes, chunk.skipped);
}

// Memory that data are read into. A process that is forked later shares it; pages that are never written take
// none.
class Buffer {
 public:
  // The largest chunk that is read, as stored.
  static constexpr std::size_t kBytes = kMaxChunkBytes + kMaxChunkBytes / 256;

  Buffer();
  ~Buffer();
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;

  std::span<std::byte> bytes() const { return {static_cast<std::byte*>(memory_), kBytes}; }

 private:
  void* memory_;
};

// An open file whose objects are named by their paths ("/", "/layers/000/k"), so that it may be in another
// process. Throws InputError as datasets/hdf5.h does. Data come in buffer() and stay until the next call.
class Storage {
 public:
  // The most that one call of read_box() or, but for its last chunk, of read_chunks() reads.
  static constexpr std::size_t kMostBytesAtOnce = std::size_t{64} << 20;

  virtual ~Storage() = default;

  virtual bool is_group(const std::string& path) = 0;
  virtual bool has_child(const std::string& group, const std::string& name) = 0;
  virtual std::vector<std::string> child_names(const std::string& group, std::size_t max_count) = 0;
  virtual std::size_t attribute_count(const std::string& path) = 0;
  virtual bool has_attribute(const std::string& path, const std::string& name) = 0;
  virtual std::string string_attribute(const std::string& path, const std::string& name) = 0;
  virtual std::int64_t int64_attribute(const std::string& path, const std::string& name) = 0;
  virtual double double_attribute(const std::string& path, const std::string& name) = 0;
  // Checks its storage (check_dataset_storage).
  virtual DatasetInfo describe_dataset(const std::string& path, std::size_t max_logical_bytes) = 0;
  // Elements [start, start + count) along each axis of a dataset that is not chunked, row-major, in the
  // file's byte order. Returns their bytes.
  virtual std::size_t read_box(const std::string& dataset, const Extents& start, const Extents& count) = 0;
  // The chunks at the first of `places`, as many as fit and at least one, one after the other.
  virtual std::vector<StoredChunk> read_chunks(const std::string& dataset,
                                               const std::vector<Extents>& places) = 0;

  virtual std::span<const std::byte> buffer() const = 0;
};

// A file that this process has open.
class LocalStorage final : public Storage {
 public:
  LocalStorage(const std::string& path, std::shared_ptr<Buffer> buffer);

  bool is_group(const std::string& path) override;
  bool has_child(const std::string& group, const std::string& name) override;
  std::vector<std::string> child_names(const std::string& group, std::size_t max_count) override;
  std::size_t attribute_count(const std::string& path) override;
  bool has_attribute(const std::string& path, const std::string& name) override;
  std::string string_attribute(const std::string& path, const std::string& name) override;
  std::int64_t int64_attribute(const std::string& path, const std::string& name) override;
  double double_attribute(const std::string& path, const std::string& name) override;
  DatasetInfo describe_dataset(const std::string& path, std::size_t max_logical_bytes) override;
  std::size_t read_box(const std::string& dataset, const Extents& start, const Extents& count) override;
  std::vector<StoredChunk> read_chunks(const std::string& dataset,
                                       const std::vector<Extents>& places) override;
  std::span<const std::byte> buffer() const override { return buffer_->bytes(); }

 private:
  // Objects stay open: a file has few, and opening a dataset again would count its chunks again.
  const Object& object(const std::string& path);

  File file_;
  std::map<std::string, Object> objects_;
  std::shared_ptr<Buffer> buffer_;
};

}  // namespace tq::hdf5
