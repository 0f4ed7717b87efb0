#pragma once

#include <string>

#include "core/codebook.h"

namespace tq {

// Throws InputError unless `codebook` has `bits` bits, passes validate(Codebook) and spans [-1, 1], the
// support of a unit vector's coordinates: what a table in an artefact or an export must be. `where` begins
// the message.
void validate_unit_table(const Codebook& codebook, int bits, const std::string& where);

// Whether the inner boundaries are the midpoints of neighbouring centroids as far as float32 can tell: within
// 2^-23 of the larger centroid, which is what rounding both to float32 can move them. A reader that knows
// only centroids re-derives midpoints, so an export says when they are not.
bool boundaries_are_midpoints(const Codebook& codebook);

// Each value as decoders hold it.
std::vector<float> to_float32(const std::vector<double>& values);
std::vector<double> to_float64(const std::vector<float>& values);

}  // namespace tq
