#pragma once

#include <string>

namespace tq {

// What the program runs on, for provenance: the first CPU's model name ("unknown" where the system does not
// say), and the instruction set that the inner loops use.
std::string cpu_model();
std::string simd_target();

}  // namespace tq
