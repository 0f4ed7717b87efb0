#include "datasets/input_tree.h"

#include <fmt/format.h>

#include <type_traits>
#include <utility>

#include "core/error.h"
#include "datasets/box_reader.h"
#include "datasets/confined_storage.h"

namespace tq::hdf5 {
namespace {

template <typename T>
constexpr ElementKind kind_of() {
  if constexpr (std::is_same_v<T, float>) return ElementKind::float32;
  if constexpr (std::is_same_v<T, double>) return ElementKind::float64;
  if constexpr (std::is_same_v<T, std::uint8_t>) return ElementKind::uint8;
  if constexpr (std::is_same_v<T, std::uint16_t>) return ElementKind::uint16;
  if constexpr (std::is_same_v<T, std::int32_t>) return ElementKind::int32;
}

template <typename T>
std::string type_name() {
  return fmt::format("{}{}",
                     std::is_floating_point_v<T> ? "float"
                     : std::is_signed_v<T>       ? "int"
                                                 : "uint",
                     8 * sizeof(T));
}

}  // namespace

std::string InputObject::where() const { return fmt::format("{}: {}", one_line(file_), one_line(name_)); }

InputObject InputObject::below(std::string_view name) const {
  return InputObject(storage_, file_, fmt::format("{}{}{}", name_, name_ == "/" ? "" : "/", name));
}

InputDataset::InputDataset(InputObject object, std::size_t max_logical_bytes)
    : InputObject(std::move(object)) {
  info_ = storage().describe_dataset(name(), max_logical_bytes);
}

std::span<const std::byte> InputDataset::read_box(const Extents& start, const Extents& count) const {
  return storage().buffer().first(storage().read_box(name(), start, count));
}

std::vector<StoredChunk> InputDataset::read_chunks(const std::vector<Extents>& places) const {
  return storage().read_chunks(name(), places);
}

InputGroup::InputGroup(InputObject object) : InputObject(std::move(object)) {
  if (!storage().is_group(name())) throw InputError("{}: is not a group", where());
}

template <typename T>
Array<T> InputGroup::array(std::string_view name, const Extents& expected, std::size_t max_elements) const {
  std::size_t max_bytes = 0;
  if (__builtin_mul_overflow(max_elements, sizeof(T), &max_bytes)) max_bytes = static_cast<std::size_t>(-1);
  const InputDataset dataset = this->dataset(name, max_bytes);
  if (dataset.info().kind != kind_of<T>()) {
    throw InputError("{}: must hold {} elements", dataset.where(), type_name<T>());
  }
  Array<T> array{dataset.info().extents, {}};
  bool same = array.extents.size() == expected.size();
  std::size_t count = 1;
  for (std::size_t i = 0; same && i < expected.size(); ++i) {
    same = expected[i] == kAnyExtent || expected[i] == array.extents[i];
    count *= array.extents[i];
  }
  if (!same) {
    throw InputError("{}: has shape {}; it must be {}", dataset.where(), to_string(array.extents),
                     to_string(expected));
  }
  array.values.resize(count);
  BoxReader(dataset, 0)
      .read(Extents(array.extents.size(), 0), array.extents,
            reinterpret_cast<std::byte*>(array.values.data()));
  return array;
}

template Array<float> InputGroup::array(std::string_view, const Extents&, std::size_t) const;
template Array<double> InputGroup::array(std::string_view, const Extents&, std::size_t) const;
template Array<std::uint8_t> InputGroup::array(std::string_view, const Extents&, std::size_t) const;
template Array<std::uint16_t> InputGroup::array(std::string_view, const Extents&, std::size_t) const;
template Array<std::int32_t> InputGroup::array(std::string_view, const Extents&, std::size_t) const;

InputGroup open_input(const std::string& path, Trust trust) {
  return InputGroup(InputObject(open_storage(path, trust), path, "/"));
}

}  // namespace tq::hdf5
