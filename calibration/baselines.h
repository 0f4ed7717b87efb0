#pragma once

#include <array>
#include <cstddef>
#include <memory>
#include <optional>
#include <string_view>

#include "calibration/cache_backend.h"

namespace tq {

// What others store a KV cache in, to compare codecs with: each quantises a vector by itself, without
// rotation, tables or calibration. Scales and minima are binary16.
//   fp16     the coordinates as they are
//   fp8      e4m3 (largest value 448), one scale a vector: max|x| / 448
//   minmax8  one minimum and one scale a vector: group values whose group is the whole vector
//   minmax4  the same with 4 bits
//   q8_0     llama.cpp's: blocks of 32, scale max|x| / 127
//   q4_0     llama.cpp's: blocks of 32, scale (signed value of the largest magnitude) / -8
enum class Baseline { fp16, fp8, minmax8, minmax4, q8_0, q4_0 };

inline constexpr std::array<Baseline, 6> kBaselines{Baseline::fp16,    Baseline::fp8,  Baseline::minmax8,
                                                    Baseline::minmax4, Baseline::q8_0, Baseline::q4_0};

std::string_view to_string(Baseline);
// None for what is no baseline's name.
std::optional<Baseline> baseline_named(std::string_view name);

// Throws UsageError for a head dimension that the baseline cannot have.
void validate(Baseline, int head_dim);

// Stored bytes of one token and KV head, scales and minima included.
int bytes_per_token(Baseline, int head_dim);

// What storing leaves of x; both rows x d. Large values saturate. A NaN makes everything NaN that shares its
// scale, or itself alone where the format has a NaN (fp16, fp8).
void encode_decode(Baseline, const float* x, std::size_t rows, int head_dim, float* out);

// On the host. Throw UsageError as validate() does.
std::shared_ptr<const KeyBackend> baseline_keys(Baseline, int head_dim);
std::shared_ptr<const ValueBackend> baseline_values(Baseline, int head_dim);

}  // namespace tq
