#pragma once

#include <span>
#include <string_view>

#include "calibration/codecs/storage_codec.h"

namespace tq {

// The codecs that a sweep knows by name beside core's. To add one, NAME:
//   1. a file of this folder defines `const StorageCodec& NAME_codec()`, and CMake finds it;
//   2. the list in registry.cpp gets one line.
// Axes, their help and messages, evaluation, result lines and plots then know it. A codec that is a function
// of the vector alone is a BaselineCodec (baseline_codec.h) and a few lines long; trellis.cpp shows one with
// bits, a rotation and codes of its own.

// In the list's order.
std::span<const StorageCodec* const> storage_codecs();
// Null for what is no codec's name.
const StorageCodec* storage_codec_named(std::string_view name);

}  // namespace tq
