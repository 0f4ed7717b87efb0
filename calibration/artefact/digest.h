#pragma once

#include <string>

#include "calibration/artefact/artefact.h"

namespace tq {

// SHA-256, as 64 hexadecimal digits, of a canonical byte string: every field is its length in bytes (u64,
// little-endian) and then its bytes, so that no two lists of fields give the same string; numbers are
// little-endian. The order of the fields is part of the format. A digest finds damage and mix-ups; it does
// not prove who wrote a file.

// Of the object that is applied: kind, head_dim, and signs and permutation or the matrix. Not of the seed.
std::string rotation_digest(const Rotation& rotation);
std::string sketch_digest(const Sketch& sketch);

// Of everything that decides a decoder's output: configurations, tables as the float32 that decoders hold,
// rotations, sketches, key basis, softmax scale, and the policy, which comes last and adds nothing where
// there is none; not of metrics and provenance. So a master copy and all its exports share it.
std::string artefact_digest(const Artefact& artefact);

// Of all that artefact_digest() leaves out of a master copy: float64 tables, seeds, gates with their metrics,
// and provenance.
std::string evidence_digest(const Artefact& artefact);

}  // namespace tq
