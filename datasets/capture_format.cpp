#include "datasets/capture_format.h"

#include <fmt/format.h>

namespace tq::capture_format {
namespace {

hdf5::Handle two_byte_float(std::size_t exponent_bits, std::size_t mantissa_bits, std::size_t bias) {
  hdf5::Handle type(H5Tcopy(H5T_IEEE_F32LE), H5Tclose);
  H5Tset_fields(type.get(), 15, mantissa_bits, exponent_bits, 0, mantissa_bits);
  H5Tset_size(type.get(), 2);
  H5Tset_ebias(type.get(), bias);
  return type;
}

}  // namespace

std::string_view name_of(Tensor tensor) {
  switch (tensor) {
    case Tensor::k:
      return "k";
    case Tensor::v:
      return "v";
    case Tensor::q:
      return "q";
    case Tensor::k_residual:
      return "k_residual";
  }
  return {};
}

std::string layer_name(int layer) { return fmt::format("{:03}", layer); }

std::size_t bytes_of(ElementType type) {
  switch (type) {
    case ElementType::float16:
    case ElementType::bfloat16:
      return 2;
    case ElementType::float32:
      return 4;
    case ElementType::float64:
      return 8;
  }
  return 0;
}

hdf5::Handle hdf5_type(ElementType type) {
  switch (type) {
    case ElementType::float16:
      return two_byte_float(5, 10, 15);
    case ElementType::bfloat16:
      return two_byte_float(8, 7, 127);
    case ElementType::float32:
      return hdf5::Handle(H5Tcopy(H5T_IEEE_F32LE), H5Tclose);
    case ElementType::float64:
      return hdf5::Handle(H5Tcopy(H5T_IEEE_F64LE), H5Tclose);
  }
  return {};
}

}  // namespace tq::capture_format
