#pragma once

#include <array>
#include <cstddef>
#include <string>
#include <string_view>

#include "datasets/capture.h"
#include "datasets/hdf5.h"

// What the reader and the writer of captures must agree on.
namespace tq::capture_format {

inline constexpr std::string_view kFormat = "kv-capture";
inline constexpr int kVersion = 1;
inline constexpr int kMaxLayers = 1000;  // three digits
inline constexpr int kMaxHeads = 65536;
inline constexpr int kMaxHeadDim = 1024;
inline constexpr std::size_t kMaxRows = std::size_t{1} << 31;       // positions are int32
inline constexpr std::size_t kMaxQueryRows = std::size_t{1} << 24;  // their places are held in memory

inline constexpr std::array<Tensor, 4> kTensors{Tensor::k, Tensor::v, Tensor::q, Tensor::k_residual};
std::string_view name_of(Tensor);

// "017"
std::string layer_name(int layer);

std::size_t bytes_of(ElementType);
// Little-endian, as written. float16 and bfloat16 are HDF5 floats with the fields of the format.
hdf5::Handle hdf5_type(ElementType);

}  // namespace tq::capture_format
