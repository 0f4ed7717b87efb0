#pragma once

#include <string>

#include "core/error.h"

namespace tq::bench {

// Prints where two files of `tq bench --json` differ: medians more than 2 % apart whose spreads do not
// overlap. gate_failed where the second is slower, or wrong where the first was right. Throws InputError for
// files that have no row in common.
ExitCode compare_bench(const std::string& path_a, const std::string& path_b, bool json);

}  // namespace tq::bench
