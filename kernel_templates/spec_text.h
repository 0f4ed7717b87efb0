#pragma once

#include <string>

#include "shared/spec.h"

// Specialisations as C++: what stands between the angle brackets of a kernel's name expression. One
// exhaustive function a type, so that a new field cannot be forgotten without the cache's key noticing.
namespace tq::gpu {

std::string cpp_text(const WhtSpec&);
std::string cpp_text(const KeySpec&);
std::string cpp_text(const GroupSpec&);
std::string cpp_text(const ValueSpec&);
std::string cpp_text(const RotateSpec&);
std::string cpp_text(const EncodeSpec&);
std::string cpp_text(const DecodeSpec&);
std::string cpp_text(const GroupCodecSpec&);
std::string cpp_text(const ScoreSpec&);
std::string cpp_text(const AttendSpec&);

// For people: "d128 mse4-nc", "d128 prod3-orthogonal", "-qr" behind a dense rotation; "d128 group3-gs32".
std::string describe(const KeySpec&);
std::string describe(const GroupSpec&);
std::string describe(const ValueSpec&);
std::string describe(Element);

}  // namespace tq::gpu
