#pragma once

#include <cstdint>
#include <string>

#include "calibration/artefact/artefact.h"
#include "tests/support/temporary_folder.h"

namespace tq::test {

// A valid artefact with random tables, configurations, head dimensions and metrics. Everything follows from
// the seed.
Artefact random_artefact(std::uint64_t seed);

// Two layers of d = 64 with the data-free tables: prod keys of 3 bits (orthogonal sketch), rotated values of
// 3 bits.
Artefact plain_artefact();

// Of everything that a file can hold, by exact arithmetic alone: two head dimensions, both key modes,
// sketches and value modes, tables by layer and by head, midpoints and others, gates, a policy. What formats
// make of it is frozen.
Artefact golden_artefact();

bool same_content(const Artefact& a, const Artefact& b);

// The text with the one occurrence of `from` replaced; throws std::logic_error where there is none.
std::string replaced(std::string text, const std::string& from, const std::string& to);

}  // namespace tq::test
