#pragma once

#include "calibration/artefact/shard.h"
#include "experiments/command_line.h"

namespace tq {

// --shard i/n, by default the whole job.
void add_shard_option(CommandLine& line, const char* help);
Shard read_shard_option(const CommandLine& line);

}  // namespace tq
