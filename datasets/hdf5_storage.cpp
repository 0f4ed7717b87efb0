#include "datasets/hdf5_storage.h"

#include <sys/mman.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "core/error.h"

namespace tq::hdf5 {

Buffer::Buffer()
    : memory_(
          mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)) {
  if (memory_ == MAP_FAILED) throw SystemError("no memory to read files into: {}", std::strerror(errno));
}

Buffer::~Buffer() { munmap(memory_, kBytes); }

LocalStorage::LocalStorage(const std::string& path, std::shared_ptr<Buffer> buffer)
    : file_(open_for_reading(path)), buffer_(std::move(buffer)) {}

const Object& LocalStorage::object(const std::string& path) {
  if (path == "/") return file_.root();
  const auto known = objects_.find(path);
  if (known != objects_.end()) return known->second;
  return objects_.emplace(path, open_object(file_.root(), std::string_view(path).substr(1))).first->second;
}

bool LocalStorage::is_group(const std::string& path) { return H5Iget_type(object(path).id()) == H5I_GROUP; }

bool LocalStorage::has_child(const std::string& group, const std::string& name) {
  return hdf5::has_child(object(group), name);
}

std::vector<std::string> LocalStorage::child_names(const std::string& group, std::size_t max_count) {
  return hdf5::child_names(object(group), max_count);
}

std::size_t LocalStorage::attribute_count(const std::string& path) {
  return hdf5::attribute_count(object(path));
}

bool LocalStorage::has_attribute(const std::string& path, const std::string& name) {
  return hdf5::has_attribute(object(path), name);
}

std::string LocalStorage::string_attribute(const std::string& path, const std::string& name) {
  return read_string_attribute(object(path), name);
}

std::int64_t LocalStorage::int64_attribute(const std::string& path, const std::string& name) {
  return read_int64_attribute(object(path), name);
}

double LocalStorage::double_attribute(const std::string& path, const std::string& name) {
  return read_double_attribute(object(path), name);
}

DatasetInfo LocalStorage::describe_dataset(const std::string& path, std::size_t max_logical_bytes) {
  const Object& dataset = object(path);
  if (H5Iget_type(dataset.id()) != H5I_DATASET) throw InputError("{}: is not a dataset", dataset.where());
  check_dataset_storage(dataset, max_logical_bytes);
  const Handle type(H5Dget_type(dataset.id()), H5Tclose);
  const Handle creation(H5Dget_create_plist(dataset.id()), H5Pclose);
  DatasetInfo info;
  info.kind = element_kind(type.get());
  info.element_bytes = H5Tget_size(type.get());
  info.big_endian = H5Tget_order(type.get()) == H5T_ORDER_BE;
  info.extents = extents_of(dataset);
  info.chunk = chunk_of(creation.get());
  info.filters = filters_of(dataset, creation.get());
  info.stored_bytes = stored_bytes(dataset);
  return info;
}

// Contiguous and compact data go through no filter. The type in memory is the file's own: bytes as they are.
std::size_t LocalStorage::read_box(const std::string& dataset, const Extents& start, const Extents& count) {
  const Object& opened = object(dataset);
  const std::vector<hsize_t> from(start.begin(), start.end()), size(count.begin(), count.end());
  const Handle type(H5Dget_type(opened.id()), H5Tclose);
  const Handle space(H5Dget_space(opened.id()), H5Sclose);
  std::size_t bytes = H5Tget_size(type.get());
  for (const std::size_t extent : count) bytes *= extent;
  // A scalar has no axes to select along.
  const Handle memory(size.empty() ? H5Screate(H5S_SCALAR)
                                   : H5Screate_simple(static_cast<int>(size.size()), size.data(), nullptr),
                      H5Sclose);
  const bool selected = size.empty() || H5Sselect_hyperslab(space.get(), H5S_SELECT_SET, from.data(), nullptr,
                                                            size.data(), nullptr) >= 0;
  if (bytes > Buffer::kBytes || !selected ||
      H5Dread(opened.id(), type.get(), memory.get(), space.get(), H5P_DEFAULT, buffer_->bytes().data()) < 0) {
    throw InputError("{}: cannot read the data ({}); the file is damaged", opened.where(),
                     take_error_stack());
  }
  return bytes;
}

std::vector<StoredChunk> LocalStorage::read_chunks(const std::string& dataset,
                                                   const std::vector<Extents>& places) {
  const Object& opened = object(dataset);
  const Handle type(H5Dget_type(opened.id()), H5Tclose);
  const Handle creation(H5Dget_create_plist(opened.id()), H5Pclose);
  std::size_t chunk_bytes = H5Tget_size(type.get());
  for (const std::size_t extent : chunk_of(creation.get())) chunk_bytes *= extent;
  std::vector<StoredChunk> chunks;
  std::size_t used = 0;
  for (const Extents& place : places) {
    const std::vector<hsize_t> offset(place.begin(), place.end());
    hsize_t size = 0;
    if (H5Dget_chunk_storage_size(opened.id(), offset.data(), &size) < 0 || size == 0) {
      throw InputError("{}: has no chunk at {}; the file is incomplete or damaged", opened.where(),
                       to_string(place));
    }
    // Deflate stores what it cannot shrink in blocks of at most 5 bytes more each 16 KiB, in a frame of 6.
    if (size > chunk_bytes + chunk_bytes / 1024 + 64) {
      throw InputError(
          "{}: the chunk at {} is stored in {} bytes, more than its content; the file is damaged",
          opened.where(), to_string(place), size);
    }
    if (!chunks.empty() && used + size > kMostBytesAtOnce) break;
    StoredChunk chunk{size, 0};
    if (H5Dread_chunk(opened.id(), H5P_DEFAULT, offset.data(), &chunk.skipped,
                      buffer_->bytes().data() + used) < 0) {
      throw InputError("{}: cannot read the chunk at {} ({}); the file is damaged", opened.where(),
                       to_string(place), take_error_stack());
    }
    chunks.push_back(chunk);
    used += size;
  }
  return chunks;
}

}  // namespace tq::hdf5
