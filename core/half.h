#pragma once

#include <cstddef>
#include <cstdint>

// IEEE binary16 ("half") and bfloat16 as bit patterns in uint16_t. Conversions to 16 bits round to nearest
// even.
namespace tq {

float half_to_float(std::uint16_t bits);
std::uint16_t float_to_half(float value);

// The nearest finite half: overflow gives +-65504 instead of infinity, so that a stored scale stays usable.
// NaN stays NaN.
std::uint16_t float_to_half_saturate(float value);

float bfloat16_to_float(std::uint16_t bits);
std::uint16_t float_to_bfloat16(float value);

// `count` consecutive elements; source and destination do not overlap.
void half_to_float(const std::uint16_t* source, float* destination, std::size_t count);
void bfloat16_to_float(const std::uint16_t* source, float* destination, std::size_t count);
void float_to_half(const float* source, std::uint16_t* destination, std::size_t count);
void float_to_half_saturate(const float* source, std::uint16_t* destination, std::size_t count);
void float_to_bfloat16(const float* source, std::uint16_t* destination, std::size_t count);

}  // namespace tq
