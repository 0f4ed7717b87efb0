#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "datasets/hdf5_storage.h"
#include "datasets/trust.h"

// An HDF5 file as readers of captures and artefacts see it: groups, datasets and their attributes. Throws
// InputError as datasets/hdf5.h does. A file is used from one thread at a time.
namespace tq::hdf5 {

class InputObject {
 public:
  InputObject() = default;
  InputObject(std::shared_ptr<Storage> storage, std::string file, std::string name)
      : storage_(std::move(storage)), file_(std::move(file)), name_(std::move(name)) {}

  explicit operator bool() const { return storage_ != nullptr; }
  const std::string& name() const { return name_; }  // "/layers/000/k"
  // "PATH: OBJECT" on one line, whatever bytes a hostile name holds.
  std::string where() const;

  std::size_t attribute_count() const { return storage_->attribute_count(name_); }
  bool has_attribute(const std::string& name) const { return storage_->has_attribute(name_, name); }
  std::string string_attribute(const std::string& name) const {
    return storage_->string_attribute(name_, name);
  }
  std::int64_t int64_attribute(const std::string& name) const {
    return storage_->int64_attribute(name_, name);
  }
  double double_attribute(const std::string& name) const { return storage_->double_attribute(name_, name); }

 protected:
  Storage& storage() const { return *storage_; }
  // Of the object `name` below this one.
  InputObject below(std::string_view name) const;

 private:
  std::shared_ptr<Storage> storage_;
  std::string file_;  // path of the file
  std::string name_;
};

class InputDataset : public InputObject {
 public:
  InputDataset() = default;
  // Checks its storage (check_dataset_storage).
  InputDataset(InputObject object, std::size_t max_logical_bytes);

  const DatasetInfo& info() const { return info_; }

  // What Storage's functions of these names read, until the next call on the file.
  std::span<const std::byte> read_box(const Extents& start, const Extents& count) const;
  std::vector<StoredChunk> read_chunks(const std::vector<Extents>& places) const;
  std::span<const std::byte> buffer() const { return storage().buffer(); }

 private:
  DatasetInfo info_;
};

template <typename T>
struct Array {
  Extents extents;
  std::vector<T> values;  // row-major
};

// `name` is relative and may have several components ("layers/000"); each must be a hard link.
class InputGroup : public InputObject {
 public:
  InputGroup() = default;
  explicit InputGroup(InputObject object);

  bool has_child(const std::string& name) const { return storage().has_child(this->name(), name); }
  // In the order of their bytes. Throws InputError on a link that is not hard and on more than `max_count`
  // children.
  std::vector<std::string> child_names(std::size_t max_count = 65536) const {
    return storage().child_names(name(), max_count);
  }
  InputGroup group(std::string_view name) const { return InputGroup(below(name)); }
  InputDataset dataset(std::string_view name, std::size_t max_logical_bytes) const {
    return InputDataset(below(name), max_logical_bytes);
  }
  // The whole of a dataset whose element type is exactly T (either byte order), whose rank and extents are
  // `expected` and which has at most `max_elements` elements. T: float, double, std::uint8_t, std::uint16_t,
  // std::int32_t.
  template <typename T>
  Array<T> array(std::string_view name, const Extents& expected, std::size_t max_elements) const;
};

// The root group of a file.
InputGroup open_input(const std::string& path, Trust trust);

}  // namespace tq::hdf5
