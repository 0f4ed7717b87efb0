#include "datasets/hdf5.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <mutex>
#include <type_traits>

#include "core/error.h"

namespace tq::hdf5 {
namespace {

constexpr std::size_t kMaxStringAttribute = std::size_t{1} << 20;
// The best that deflate can do: a match of 258 bytes in 2 bits (zlib's technical notes).
constexpr std::size_t kMaxDeflateRatio = 1032;

// Once a thread, since the library keeps error printing a thread (and a plain H5open once a process).
void initialise() {
  static std::once_flag once;
  std::call_once(once, [] {
    // Every identifier has an owner here; after a full disk the library's own exit handler would write again.
    H5dont_atexit();
    H5open();
    // A file must not choose code to load.
    H5PLset_loading_state(0);
  });
  H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr);
}

struct StackEnds {
  std::string outermost, innermost;
  bool not_hdf5 = false;
};

herr_t note_stack_entry(unsigned, const H5E_error2_t* entry, void* data) {
  auto& ends = *static_cast<StackEnds*>(data);
  const std::string text = entry->desc ? entry->desc : "";
  if (ends.outermost.empty()) ends.outermost = text;
  if (!text.empty()) ends.innermost = text;
  ends.not_hdf5 = ends.not_hdf5 || entry->min_num == H5E_NOTHDF5;
  return 0;
}

StackEnds take_stack_ends() {
  StackEnds ends;
  H5Ewalk2(H5E_DEFAULT, H5E_WALK_DOWNWARD, note_stack_entry, &ends);
  H5Eclear2(H5E_DEFAULT);
  return ends;
}

std::string place(const std::string& file, const std::string& name) {
  return fmt::format("{}: {}", one_line(file), one_line(name));
}

std::string join(const std::string& parent, std::string_view child) {
  return fmt::format("{}{}{}", parent, parent == "/" ? "" : "/", child);
}

// ": REASON" from the error stack, or nothing.
std::string reason() {
  const std::string text = take_error_stack();
  return text.empty() ? text : fmt::format(" ({})", text);
}

[[noreturn]] void fail_to_write(const std::string& where, std::string_view what) {
  throw SystemError("{}: cannot {}{}", where, what, reason());
}

[[noreturn]] void fail_to_read(const std::string& where, std::string_view what) {
  throw InputError("{}: cannot {}{}; the file is damaged", where, what, reason());
}

enum class Step { missing, present };

// Looks at one component of a path without following it.
Step look_at_link(const Object& parent, const std::string& component) {
  const std::string name = join(parent.name(), component);
  if (component.empty() || component == "." || component.find('\0') != std::string::npos) {
    throw InputError("{}: is not a valid name", place(parent.file(), name));
  }
  const htri_t exists = H5Lexists(parent.id(), component.c_str(), H5P_DEFAULT);
  if (exists < 0) fail_to_read(parent.where(), "look up a link");
  if (exists == 0) return Step::missing;
  H5L_info_t link;
  if (H5Lget_info(parent.id(), component.c_str(), &link, H5P_DEFAULT) < 0) {
    fail_to_read(place(parent.file(), name), "examine the link");
  }
  if (link.type != H5L_TYPE_HARD) {
    const char* kind = link.type == H5L_TYPE_SOFT       ? "a soft link"
                       : link.type == H5L_TYPE_EXTERNAL ? "an external link"
                                                        : "a user-defined link";
    throw InputError("{}: is {}, which is refused; store the object itself", place(parent.file(), name),
                     kind);
  }
  return Step::present;
}

Handle open_hard_link(const Object& parent, const std::string& component) {
  const std::string where = place(parent.file(), join(parent.name(), component));
  if (look_at_link(parent, component) == Step::missing) throw InputError("{}: is missing", where);
  Handle object(H5Oopen(parent.id(), component.c_str(), H5P_DEFAULT), H5Oclose);
  if (!object) fail_to_read(where, "open the object");
  const H5I_type_t kind = H5Iget_type(object.get());
  if (kind != H5I_GROUP && kind != H5I_DATASET) {
    throw InputError("{}: is neither a group nor a dataset", where);
  }
  return object;
}

std::vector<std::string> components_of(std::string_view path) {
  std::vector<std::string> components;
  for (std::size_t begin = 0; begin <= path.size();) {
    const std::size_t end = std::min(path.find('/', begin), path.size());
    components.emplace_back(path.substr(begin, end - begin));
    begin = end + 1;
  }
  return components;
}

Object walk(const Object& parent, std::string_view path) {
  Object reached;
  const Object* at = &parent;
  for (const std::string& component : components_of(path)) {
    if (H5Iget_type(at->id()) != H5I_GROUP) throw InputError("{}: is not a group", at->where());
    Handle next = open_hard_link(*at, component);
    reached = Object(std::move(next), parent.file(), join(at->name(), component));
    at = &reached;
  }
  return reached;
}

template <typename T>
hid_t stored_type();
template <typename T>
hid_t native_type();
template <>
hid_t stored_type<float>() {
  return H5T_IEEE_F32LE;
}
template <>
hid_t native_type<float>() {
  return H5T_NATIVE_FLOAT;
}
template <>
hid_t stored_type<double>() {
  return H5T_IEEE_F64LE;
}
template <>
hid_t native_type<double>() {
  return H5T_NATIVE_DOUBLE;
}
template <>
hid_t stored_type<std::uint8_t>() {
  return H5T_STD_U8LE;
}
template <>
hid_t native_type<std::uint8_t>() {
  return H5T_NATIVE_UINT8;
}
template <>
hid_t stored_type<std::uint16_t>() {
  return H5T_STD_U16LE;
}
template <>
hid_t native_type<std::uint16_t>() {
  return H5T_NATIVE_UINT16;
}
template <>
hid_t stored_type<std::int32_t>() {
  return H5T_STD_I32LE;
}
template <>
hid_t native_type<std::int32_t>() {
  return H5T_NATIVE_INT32;
}

// The stored type is T's in either byte order.
template <typename T>
bool is_type(hid_t type) {
  Handle swapped(H5Tcopy(stored_type<T>()), H5Tclose);
  H5Tset_order(swapped.get(), H5T_ORDER_BE);
  return H5Tequal(type, stored_type<T>()) > 0 || H5Tequal(type, swapped.get()) > 0;
}

Handle open_attribute(const Object& object, const std::string& name, H5T_class_t& type_class, Handle& type) {
  const htri_t exists = H5Aexists(object.id(), name.c_str());
  if (exists < 0) fail_to_read(object.where(), fmt::format("look up attribute '{}'", name));
  if (exists == 0) throw InputError("{}: has no attribute '{}'", object.where(), name);
  Handle attribute(H5Aopen(object.id(), name.c_str(), H5P_DEFAULT), H5Aclose);
  if (!attribute) fail_to_read(object.where(), fmt::format("open attribute '{}'", name));
  type = Handle(H5Aget_type(attribute.get()), H5Tclose);
  Handle space(H5Aget_space(attribute.get()), H5Sclose);
  if (!type || !space) fail_to_read(object.where(), fmt::format("examine attribute '{}'", name));
  // h5py stores np.array([x]) for a lone number often enough; one element is one element.
  if (H5Sget_simple_extent_npoints(space.get()) != 1) {
    throw InputError("{}: attribute '{}' must hold one value", object.where(), name);
  }
  type_class = H5Tget_class(type.get());
  return attribute;
}

void write_scalar_attribute(const Object& object, const std::string& name, hid_t stored, hid_t native,
                            const void* value) {
  Handle space(H5Screate(H5S_SCALAR), H5Sclose);
  Handle attribute(H5Acreate2(object.id(), name.c_str(), stored, space.get(), H5P_DEFAULT, H5P_DEFAULT),
                   H5Aclose);
  if (!attribute || H5Awrite(attribute.get(), native, value) < 0) {
    fail_to_write(object.where(), fmt::format("write attribute '{}'", name));
  }
}

// Multiplies sizes that a file claims; false when the product does not fit.
bool multiply(std::size_t a, std::size_t b, std::size_t& product) {
  return !__builtin_mul_overflow(a, b, &product);
}

std::size_t file_size(const Object& object) {
  Handle file(H5Iget_file_id(object.id()), H5Fclose);
  hsize_t size = 0;
  if (!file || H5Fget_filesize(file.get(), &size) < 0) fail_to_read(object.where(), "find the file's size");
  return size;
}

}  // namespace

std::string one_line(std::string_view text) {
  std::string line(text);
  std::replace_if(
      line.begin(), line.end(), [](unsigned char c) { return c < 0x20 || c == 0x7f; }, '?');
  return line;
}

std::string take_error_stack() {
  const StackEnds ends = take_stack_ends();
  // A failed system call: of a line full of addresses, what the system said.
  constexpr std::string_view kSystemMessage = "error message = '";
  if (const std::size_t at = ends.innermost.find(kSystemMessage); at != std::string::npos) {
    const std::size_t begin = at + kSystemMessage.size();
    return one_line(ends.innermost.substr(begin, ends.innermost.find('\'', begin) - begin));
  }
  if (ends.outermost == ends.innermost) return one_line(ends.outermost);
  return one_line(fmt::format("{}: {}", ends.outermost, ends.innermost));
}

std::string Object::where() const { return place(file_, name_); }

void File::flush() {
  if (H5Fflush(handle_.get(), H5F_SCOPE_GLOBAL) < 0) fail_to_write(one_line(root_.file()), "write the file");
}

void File::close() {
  flush();
  const std::string where = one_line(root_.file());
  root_ = Object();
  if (H5Fclose(handle_.release()) < 0) fail_to_write(where, "close the file");
}

File open_for_reading(const std::string& path) {
  initialise();
  const std::string where = one_line(path);
  struct stat status {};
  if (stat(path.c_str(), &status) != 0) throw InputError("{}: cannot open: {}", where, std::strerror(errno));
  if (!S_ISREG(status.st_mode)) throw InputError("{}: is not a regular file", where);
  if (status.st_size == 0) throw InputError("{}: is empty", where);
  Handle access(H5Pcreate(H5P_FILE_ACCESS), H5Pclose);
  // Lock where the file system can, read all the same where it cannot.
  H5Pset_file_locking(access.get(), true, true);
  H5Pset_fclose_degree(access.get(), H5F_CLOSE_STRONG);
  Handle file(H5Fopen(path.c_str(), H5F_ACC_RDONLY, access.get()), H5Fclose);
  if (!file) {
    const StackEnds ends = take_stack_ends();
    if (ends.not_hdf5) throw InputError("{}: is not an HDF5 file", where);
    throw InputError("{}: cannot open: {}", where, one_line(ends.innermost));
  }
  Object root(Handle(H5Gopen2(file.get(), "/", H5P_DEFAULT), H5Gclose), path, "/");
  if (!root) fail_to_read(where, "open the root group");
  return File(std::move(file), std::move(root));
}

File create_for_writing(const std::string& path, const std::string& shown_path) {
  initialise();
  Handle access(H5Pcreate(H5P_FILE_ACCESS), H5Pclose);
  H5Pset_file_locking(access.get(), true, true);
  H5Pset_fclose_degree(access.get(), H5F_CLOSE_STRONG);
  Handle file(H5Fcreate(path.c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, access.get()), H5Fclose);
  if (!file) fail_to_write(one_line(shown_path), "create the file");
  Object root(Handle(H5Gopen2(file.get(), "/", H5P_DEFAULT), H5Gclose), shown_path, "/");
  if (!root) fail_to_write(one_line(shown_path), "open the root group");
  return File(std::move(file), std::move(root));
}

bool has_child(const Object& parent, std::string_view name) {
  const std::vector<std::string> components = components_of(name);
  Object reached;
  const Object* at = &parent;
  for (std::size_t i = 0; i < components.size(); ++i) {
    if (look_at_link(*at, components[i]) == Step::missing) return false;
    if (i + 1 == components.size()) break;
    Object next = walk(*at, components[i]);
    if (H5Iget_type(next.id()) != H5I_GROUP) throw InputError("{}: is not a group", next.where());
    reached = std::move(next);
    at = &reached;
  }
  return true;
}

Object open_object(const Object& parent, std::string_view name) { return walk(parent, name); }

Object create_group(const Object& parent, std::string_view name) {
  const std::string component(name);
  const std::string full = join(parent.name(), name);
  Handle group(H5Gcreate2(parent.id(), component.c_str(), H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT), H5Gclose);
  if (!group) fail_to_write(place(parent.file(), full), "create the group");
  return Object(std::move(group), parent.file(), full);
}

std::vector<std::string> child_names(const Object& group, std::size_t max_count) {
  H5G_info_t info;
  if (H5Gget_info(group.id(), &info) < 0) fail_to_read(group.where(), "list the group");
  if (info.nlinks > max_count) {
    throw InputError("{}: has {} children; at most {} are read", group.where(), info.nlinks, max_count);
  }
  // Nothing may throw through the library's C frames.
  struct Listing {
    std::vector<std::string> names;
    std::size_t max_count;
  } listing{{}, max_count};
  const auto note = [](hid_t, const char* name, const H5L_info_t*, void* data) -> herr_t {
    auto& list = *static_cast<Listing*>(data);
    if (list.names.size() == list.max_count) return -1;
    try {
      list.names.emplace_back(name);
    } catch (...) {
      return -1;
    }
    return 0;
  };
  if (H5Literate(group.id(), H5_INDEX_NAME, H5_ITER_NATIVE, nullptr, note, &listing) < 0) {
    fail_to_read(group.where(), "list the group");
  }
  std::sort(listing.names.begin(), listing.names.end());
  for (const std::string& name : listing.names) look_at_link(group, name);
  return std::move(listing.names);
}

bool has_attribute(const Object& object, const std::string& name) {
  const htri_t exists = H5Aexists(object.id(), name.c_str());
  if (exists < 0) fail_to_read(object.where(), fmt::format("look up attribute '{}'", name));
  return exists > 0;
}

std::size_t attribute_count(const Object& object) {
  H5O_info_t info;
  if (H5Oget_info2(object.id(), &info, H5O_INFO_NUM_ATTRS) < 0) {
    throw InputError("{}: cannot be examined; the file is damaged", object.where());
  }
  return info.num_attrs;
}

std::string read_string_attribute(const Object& object, const std::string& name) {
  H5T_class_t type_class;
  Handle type;
  const Handle attribute = open_attribute(object, name, type_class, type);
  if (type_class != H5T_STRING) throw InputError("{}: attribute '{}' must be a string", object.where(), name);
  std::string text;
  if (H5Tis_variable_str(type.get()) > 0) {
    Handle memory(H5Tcopy(H5T_C_S1), H5Tclose);
    H5Tset_size(memory.get(), H5T_VARIABLE);
    H5Tset_cset(memory.get(), H5Tget_cset(type.get()));
    char* value = nullptr;
    if (H5Aread(attribute.get(), memory.get(), &value) < 0) {
      fail_to_read(object.where(), fmt::format("read attribute '{}'", name));
    }
    if (value) {
      text.assign(value, strnlen(value, kMaxStringAttribute + 1));
      H5free_memory(value);
    }
  } else {
    const std::size_t size = H5Tget_size(type.get());
    if (size <= kMaxStringAttribute) {
      text.resize(size);
      if (H5Aread(attribute.get(), type.get(), text.data()) < 0) {
        fail_to_read(object.where(), fmt::format("read attribute '{}'", name));
      }
      text.resize(strnlen(text.data(), size));
      if (H5Tget_strpad(type.get()) == H5T_STR_SPACEPAD) text.erase(text.find_last_not_of(' ') + 1);
    } else {
      text.resize(kMaxStringAttribute + 1);
    }
  }
  if (text.size() > kMaxStringAttribute) {
    throw InputError("{}: attribute '{}' is longer than {} bytes", object.where(), name, kMaxStringAttribute);
  }
  return text;
}

std::int64_t read_int64_attribute(const Object& object, const std::string& name) {
  H5T_class_t type_class;
  Handle type;
  const Handle attribute = open_attribute(object, name, type_class, type);
  if (type_class != H5T_INTEGER)
    throw InputError("{}: attribute '{}' must be an integer", object.where(), name);
  std::int64_t value = 0;
  if (H5Aread(attribute.get(), H5T_NATIVE_INT64, &value) < 0) {
    fail_to_read(object.where(), fmt::format("read attribute '{}'", name));
  }
  return value;
}

double read_double_attribute(const Object& object, const std::string& name) {
  H5T_class_t type_class;
  Handle type;
  const Handle attribute = open_attribute(object, name, type_class, type);
  if (type_class != H5T_INTEGER && type_class != H5T_FLOAT) {
    throw InputError("{}: attribute '{}' must be a number", object.where(), name);
  }
  double value = 0;
  if (H5Aread(attribute.get(), H5T_NATIVE_DOUBLE, &value) < 0) {
    fail_to_read(object.where(), fmt::format("read attribute '{}'", name));
  }
  return value;
}

void write_attribute(const Object& object, const std::string& name, std::string_view value) {
  const std::string text(value);
  Handle type(H5Tcopy(H5T_C_S1), H5Tclose);
  // Fixed length (readable without a global heap), at least 1 because HDF5 has no empty type.
  H5Tset_size(type.get(), std::max<std::size_t>(text.size(), 1));
  H5Tset_strpad(type.get(), H5T_STR_NULLPAD);
  H5Tset_cset(type.get(), H5T_CSET_UTF8);
  write_scalar_attribute(object, name, type.get(), type.get(), text.c_str());
}

void write_attribute(const Object& object, const std::string& name, std::int64_t value) {
  write_scalar_attribute(object, name, H5T_STD_I64LE, H5T_NATIVE_INT64, &value);
}

void write_attribute(const Object& object, const std::string& name, double value) {
  write_scalar_attribute(object, name, H5T_IEEE_F64LE, H5T_NATIVE_DOUBLE, &value);
}

Extents extents_of(const Object& dataset) {
  Handle space(H5Dget_space(dataset.id()), H5Sclose);
  if (!space) fail_to_read(dataset.where(), "examine the shape");
  if (H5Sget_simple_extent_type(space.get()) == H5S_NULL)
    throw InputError("{}: holds nothing", dataset.where());
  hsize_t sizes[H5S_MAX_RANK];
  const int rank = H5Sget_simple_extent_dims(space.get(), sizes, nullptr);
  if (rank < 0) fail_to_read(dataset.where(), "examine the shape");
  return Extents(sizes, sizes + rank);
}

std::string to_string(const Extents& extents) {
  std::string text = "(";
  for (std::size_t i = 0; i < extents.size(); ++i) {
    text += i ? ", " : "";
    text += extents[i] == kAnyExtent ? "any" : std::to_string(extents[i]);
  }
  return text + ")";
}

ElementKind element_kind(hid_t type) {
  if (is_type<std::uint8_t>(type)) return ElementKind::uint8;
  if (is_type<std::uint16_t>(type)) return ElementKind::uint16;
  if (is_type<std::int32_t>(type)) return ElementKind::int32;
  const std::size_t size = H5Tget_size(type);
  if (H5Tget_class(type) != H5T_FLOAT || H5Tget_precision(type) != 8 * size || H5Tget_offset(type) != 0 ||
      H5Tget_norm(type) != H5T_NORM_IMPLIED || H5Tget_order(type) > H5T_ORDER_BE) {
    return ElementKind::other;
  }
  std::size_t sign = 0, exponent_at = 0, exponent_bits = 0, mantissa_at = 0, mantissa_bits = 0;
  H5Tget_fields(type, &sign, &exponent_at, &exponent_bits, &mantissa_at, &mantissa_bits);
  const auto is = [&](std::size_t exponent, std::size_t mantissa) {
    return 8 * size == 1 + exponent + mantissa && sign == 8 * size - 1 && exponent_at == mantissa &&
           exponent_bits == exponent && mantissa_at == 0 && mantissa_bits == mantissa &&
           H5Tget_ebias(type) == (std::size_t{1} << (exponent - 1)) - 1;
  };
  if (is(5, 10)) return ElementKind::float16;
  if (is(8, 7)) return ElementKind::bfloat16;
  if (is(8, 23)) return ElementKind::float32;
  if (is(11, 52)) return ElementKind::float64;
  return ElementKind::other;
}

std::vector<Filter> filters_of(const Object& dataset, hid_t creation) {
  const int count = H5Pget_nfilters(creation);
  if (count < 0) fail_to_read(dataset.where(), "examine the filters");
  std::vector<Filter> filters;
  bool deflated = false;
  for (int i = 0; i < count; ++i) {
    unsigned flags = 0, config = 0, values[8] = {};
    std::size_t parameters = std::size(values);
    char name[64] = "";
    const H5Z_filter_t filter = H5Pget_filter2(creation, static_cast<unsigned>(i), &flags, &parameters,
                                               values, sizeof name, name, &config);
    if (filter < 0) fail_to_read(dataset.where(), "examine the filters");
    if (filter == H5Z_FILTER_FLETCHER32) {
      filters.push_back({FilterKind::fletcher32, 0});
    } else if (filter == H5Z_FILTER_SHUFFLE) {
      // Without a parameter it is the size of an element.
      const Handle type(H5Dget_type(dataset.id()), H5Tclose);
      const std::size_t size = parameters > 0 ? values[0] : H5Tget_size(type.get());
      if (size == 0) {
        throw InputError("{}: is shuffled by elements of 0 bytes; the file is damaged", dataset.where());
      }
      filters.push_back({FilterKind::shuffle, static_cast<std::uint32_t>(size)});
    } else if (filter == H5Z_FILTER_DEFLATE) {
      // Deflate twice would square the ratio that the size check relies on.
      if (deflated) throw InputError("{}: is deflated twice", dataset.where());
      deflated = true;
      filters.push_back({FilterKind::deflate, 0});
    } else {
      name[sizeof name - 1] = '\0';
      throw InputError(
          "{}: is stored with filter {} '{}'; only deflate, shuffle and fletcher32 are read: rewrite it with "
          "those",
          dataset.where(), filter, one_line(name));
    }
  }
  return filters;
}

Extents chunk_of(hid_t creation) {
  if (H5Pget_layout(creation) != H5D_CHUNKED) return {};
  hsize_t sizes[H5S_MAX_RANK];
  const int rank = H5Pget_chunk(creation, H5S_MAX_RANK, sizes);
  return Extents(sizes, sizes + std::max(rank, 0));
}

std::size_t stored_bytes(const Object& dataset) { return H5Dget_storage_size(dataset.id()); }

void check_dataset_storage(const Object& dataset, std::size_t max_logical_bytes) {
  const std::string where = dataset.where();
  Handle creation(H5Dget_create_plist(dataset.id()), H5Pclose);
  Handle type(H5Dget_type(dataset.id()), H5Tclose);
  if (!creation || !type) fail_to_read(where, "examine the dataset");

  std::size_t element_bytes = H5Tget_size(type.get());
  if (element_bytes == 0) fail_to_read(where, "examine the element type");
  std::size_t logical = element_bytes;
  bool fits = true;
  for (const std::size_t extent : extents_of(dataset)) fits = fits && multiply(logical, extent, logical);
  if (!fits || logical > max_logical_bytes) {
    throw InputError("{}: claims {} elements of {} bytes; at most {} bytes are read", where,
                     to_string(extents_of(dataset)), element_bytes, max_logical_bytes);
  }

  if (H5Pget_external_count(creation.get()) != 0) {
    throw InputError("{}: keeps its data in another file, which is refused; store the data itself", where);
  }
  const H5D_layout_t layout = H5Pget_layout(creation.get());
  if (layout == H5D_VIRTUAL) {
    throw InputError("{}: is a virtual dataset, which is refused; store the data itself", where);
  }
  if (layout != H5D_COMPACT && layout != H5D_CONTIGUOUS && layout != H5D_CHUNKED) {
    throw InputError("{}: has an unknown storage layout", where);
  }
  unsigned options = 0;
  if (layout == H5D_CHUNKED && H5Pget_chunk_opts(creation.get(), &options) < 0) {
    fail_to_read(where, "examine the chunks");
  }
  if (options != 0) {
    throw InputError("{}: leaves chunks at its edges unfiltered; rewrite it without that option", where);
  }
  const std::vector<Filter> filters = filters_of(dataset, creation.get());
  const bool deflated = std::any_of(filters.begin(), filters.end(),
                                    [](const Filter& filter) { return filter.kind == FilterKind::deflate; });
  if (layout == H5D_CHUNKED) {
    const Extents sizes = chunk_of(creation.get());
    std::size_t chunk = element_bytes;
    for (const std::size_t size : sizes) fits = fits && multiply(chunk, size, chunk);
    if (sizes.size() != extents_of(dataset).size() || !fits || chunk > kMaxChunkBytes) {
      throw InputError("{}: is stored in chunks over {} MiB; rewrite it with smaller ones", where,
                       kMaxChunkBytes >> 20);
    }
  }
  const std::size_t stored = stored_bytes(dataset);
  const std::size_t in_file = file_size(dataset);
  if (stored > in_file) {
    throw InputError("{}: claims {} stored bytes in a file of {}; the file is damaged", where, stored,
                     in_file);
  }
  if (logical > stored * (deflated ? kMaxDeflateRatio : 1)) {
    throw InputError("{}: claims {} bytes, more than its {} stored bytes can hold", where, logical, stored);
  }
}

template <typename T>
void write_array(const Object& parent, std::string_view name, const Extents& extents,
                 const std::vector<T>& values) {
  const std::string component(name);
  const std::string where = place(parent.file(), join(parent.name(), name));
  const std::vector<hsize_t> sizes(extents.begin(), extents.end());
  Handle space(H5Screate_simple(static_cast<int>(sizes.size()), sizes.data(), nullptr), H5Sclose);
  // Without times in it, the same content is the same file.
  Handle creation(H5Pcreate(H5P_DATASET_CREATE), H5Pclose);
  H5Pset_obj_track_times(creation.get(), false);
  Handle dataset(H5Dcreate2(parent.id(), component.c_str(), stored_type<T>(), space.get(), H5P_DEFAULT,
                            creation.get(), H5P_DEFAULT),
                 H5Dclose);
  if (!dataset ||
      H5Dwrite(dataset.get(), native_type<T>(), H5S_ALL, H5S_ALL, H5P_DEFAULT, values.data()) < 0) {
    fail_to_write(where, "write the dataset");
  }
  // Closing writes what the library still holds of the data, and a destructor could not say that it failed.
  if (H5Dclose(dataset.release()) < 0) fail_to_write(where, "write the dataset");
}

template void write_array(const Object&, std::string_view, const Extents&, const std::vector<float>&);
template void write_array(const Object&, std::string_view, const Extents&, const std::vector<double>&);
template void write_array(const Object&, std::string_view, const Extents&, const std::vector<std::uint8_t>&);
template void write_array(const Object&, std::string_view, const Extents&, const std::vector<std::uint16_t>&);
template void write_array(const Object&, std::string_view, const Extents&, const std::vector<std::int32_t>&);

}  // namespace tq::hdf5
