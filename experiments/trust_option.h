#pragma once

#include "datasets/trust.h"
#include "experiments/command_line.h"

namespace tq {

// --trust-files, of every command that reads captures or artefacts.
void add_trust_option(CommandLine& line);
Trust read_trust(const CommandLine& line);

}  // namespace tq
