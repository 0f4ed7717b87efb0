#pragma once

#include <string>

#include "kernel_templates/tuning_file.h"

namespace tq::tune {

// Adds `found` to the choices that the tuning file holds for `scope`. The file is replaced as a whole, and
// processes that store at once wait for each other, so that none loses what another has found. Throws
// SystemError where it cannot be written; the file is then as it was.
void store_choices(const std::string& path, const TuningScope& scope, const Tuning& found);

}  // namespace tq::tune
