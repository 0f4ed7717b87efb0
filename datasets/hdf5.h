#pragma once

#include <hdf5.h>

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

// The part of HDF5 that captures and artefacts need, hardened: a file may come from a stranger. Reading
// refuses, with an InputError of one line "PATH: OBJECT: what is wrong", links that leave the plain tree,
// external and virtual storage, filters other than deflate, shuffle and fletcher32, and sizes that the stored
// bytes cannot back. Writing throws SystemError. A file and everything opened from it are used from one
// thread. What this cannot mend is the library's own parsing: HDF5 1.10.8 crashes, or does not end, on some
// damaged object headers and variable-length strings, which the older file layout covers by no checksum. So
// readers do not call this but datasets/input_tree.h, which keeps the library in a process of its own.
namespace tq::hdf5 {

// Owns an HDF5 identifier.
class Handle {
 public:
  using Close = herr_t (*)(hid_t);

  Handle() = default;
  Handle(hid_t id, Close close) : id_(id), close_(close) {}
  Handle(Handle&& other) noexcept : id_(std::exchange(other.id_, H5I_INVALID_HID)), close_(other.close_) {}
  Handle& operator=(Handle&& other) noexcept {
    std::swap(id_, other.id_);
    std::swap(close_, other.close_);
    return *this;
  }
  ~Handle() { reset(); }

  hid_t get() const { return id_; }
  explicit operator bool() const { return id_ >= 0; }
  void reset() noexcept {
    if (id_ >= 0) close_(id_);
    id_ = H5I_INVALID_HID;
  }
  // Gives up the identifier without closing it.
  hid_t release() { return std::exchange(id_, H5I_INVALID_HID); }

 private:
  hid_t id_ = H5I_INVALID_HID;
  Close close_ = nullptr;
};

// An open group or dataset that knows its place, for messages.
class Object {
 public:
  Object() = default;
  Object(Handle handle, std::string file, std::string name)
      : handle_(std::move(handle)), file_(std::move(file)), name_(std::move(name)) {}

  hid_t id() const { return handle_.get(); }
  explicit operator bool() const { return static_cast<bool>(handle_); }
  const std::string& file() const { return file_; }  // path of the file
  const std::string& name() const { return name_; }  // "/layers/000/k"
  // "PATH: OBJECT" on one line, whatever bytes a hostile name holds.
  std::string where() const;

 private:
  Handle handle_;
  std::string file_;
  std::string name_;
};

// An open file. Objects opened from it must be gone when it is closed or destroyed.
class File {
 public:
  File() = default;
  File(Handle handle, Object root) : handle_(std::move(handle)), root_(std::move(root)) {}
  const Object& root() const { return root_; }
  // Hands everything to the system, the data of open datasets too: an object that is closed with data of its
  // own does not say that it could not be written. Throws SystemError.
  void flush();
  // Ends writing; throws SystemError where data cannot reach the disk.
  void close();

 private:
  Handle handle_;
  Object root_;
};

// Read-only. Throws InputError when the file is missing, not a regular file, not HDF5, or truncated.
File open_for_reading(const std::string& path);
// A new file in place of any old one. `shown_path` is what messages call it where `path` is a temporary name.
File create_for_writing(const std::string& path, const std::string& shown_path);

// `name` is relative to `parent` and may have several components ("layers/000"); each must be a hard link.
bool has_child(const Object& parent, std::string_view name);
// A group or a dataset.
Object open_object(const Object& parent, std::string_view name);
Object create_group(const Object& parent, std::string_view name);
// In the order of their bytes. Throws InputError on a link that is not hard and on more than `max_count`
// children.
std::vector<std::string> child_names(const Object& group, std::size_t max_count = 65536);

// Scalar attributes. Strings of fixed or variable length, at most 1 MiB; integers of any width that fit
// int64; doubles from any HDF5 integer or float. Throw InputError when the attribute is missing or of another
// kind.
bool has_attribute(const Object&, const std::string& name);
std::size_t attribute_count(const Object&);
std::string read_string_attribute(const Object&, const std::string& name);
std::int64_t read_int64_attribute(const Object&, const std::string& name);
double read_double_attribute(const Object&, const std::string& name);
void write_attribute(const Object&, const std::string& name, std::string_view value);
void write_attribute(const Object&, const std::string& name, std::int64_t value);
void write_attribute(const Object&, const std::string& name, double value);
// So that no literal or flag picks an overload by conversion.
inline void write_attribute(const Object& object, const std::string& name, const char* value) {
  write_attribute(object, name, std::string_view(value));
}
inline void write_attribute(const Object& object, const std::string& name, int value) {
  write_attribute(object, name, std::int64_t{value});
}
void write_attribute(const Object&, const std::string& name, bool value) = delete;

using Extents = std::vector<std::size_t>;
Extents extents_of(const Object& dataset);
// In place of an extent: any.
inline constexpr std::size_t kAnyExtent = static_cast<std::size_t>(-1);
// "(1024, 2, 128)"
std::string to_string(const Extents&);

// A new contiguous, little-endian dataset; `values` holds the product of the extents.
template <typename T>
void write_array(const Object& parent, std::string_view name, const Extents& extents,
                 const std::vector<T>& values);

// Elements that captures and artefacts are made of, of either byte order; floats are told apart by their
// fields.
enum class ElementKind : std::uint8_t { float16, bfloat16, float32, float64, uint8, uint16, int32, other };
ElementKind element_kind(hid_t type);

enum class FilterKind : std::uint8_t { deflate, shuffle, fletcher32 };
struct Filter {
  FilterKind kind{};
  std::uint32_t element_bytes = 0;  // shuffle only
};
template <typename Archive>
void fields(Archive& archive, Filter& filter) {
  archive(filter.kind, filter.element_bytes);
}
// Of a dataset's creation properties. Throws InputError on a filter of another kind, and on a second deflate.
std::vector<Filter> filters_of(const Object& dataset, hid_t creation);
// Empty where the dataset is not chunked.
Extents chunk_of(hid_t creation);

inline constexpr std::size_t kMaxChunkBytes = std::size_t{256} << 20;

// Throws InputError where the storage of a dataset is external, virtual, filtered by anything but deflate,
// shuffle and fletcher32, in chunks over 256 MiB, logically larger than `max_logical_bytes`, or logically
// larger than the stored bytes can inflate to (deflate's limit is 1032:1; a chunk that was never written
// counts as nothing).
void check_dataset_storage(const Object& dataset, std::size_t max_logical_bytes);

// Bytes of a dataset as stored (compressed).
std::size_t stored_bytes(const Object& dataset);

// Printable and on one line: control characters become '?'.
std::string one_line(std::string_view text);

// The outermost and the innermost line of HDF5's error stack, which is cleared; "" when it is empty.
std::string take_error_stack();

}  // namespace tq::hdf5
